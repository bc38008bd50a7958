#include "base/utc.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

int utc_text(int64_t us, char out[UTC_TEXT])
{
    int64_t fraction = us % 1000000;
    time_t seconds = (time_t)(us / 1000000);
    struct tm tm;
    if (fraction < 0) {
        fraction += 1000000;
        seconds--;
    }
    if (!gmtime_r(&seconds, &tm) || tm.tm_year + 1900 < 1 || tm.tm_year + 1900 > 9999)
        return -ERANGE;
    snprintf(out, UTC_TEXT, "%04d-%02d-%02dT%02d:%02d:%02d.%06dZ", tm.tm_year + 1900, tm.tm_mon + 1,
             tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec, (int)fraction);
    return 0;
}

/* Whether a text begins as a form does: 0 is any digit, + either sign, T a T or a blank. */
static bool has_form(const char *text, const char *form)
{
    for (; *form; form++, text++) {
        bool fits = *form == '0'   ? *text >= '0' && *text <= '9'
                    : *form == '+' ? *text == '+' || *text == '-'
                                   : *text == *form || (*form == 'T' && *text == ' ');
        if (!fits)
            return false;
    }
    return true;
}

/* "Z" or "+01:00", in seconds east of Greenwich. */
static bool parse_zone(const char *text, int64_t *offset)
{
    int hours, minutes;
    *offset = 0;
    if (strcmp(text, "Z") == 0)
        return true;
    if (!has_form(text, "+00:00") || text[6] != '\0' || sscanf(text + 1, "%2d:%2d", &hours, &minutes) != 2)
        return false;
    *offset = (*text == '-' ? -60 : 60) * (hours * 60 + minutes);
    return hours < 24 && minutes < 60;
}

int utc_parse(const char *text, int64_t *us)
{
    static const char form[] = "0000-00-00T00:00:00";
    struct tm tm = {0};
    if (!has_form(text, form) || sscanf(text, "%4d-%2d-%2d%*1[T ]%2d:%2d:%2d", &tm.tm_year, &tm.tm_mon,
                                        &tm.tm_mday, &tm.tm_hour, &tm.tm_min, &tm.tm_sec) != 6)
        return -EINVAL;
    int64_t fraction = 0, scale = 1000000, offset;
    const char *rest = text + sizeof form - 1;
    if (*rest == '.')
        for (rest++; *rest >= '0' && *rest <= '9' && scale > 1; rest++)
            fraction += (*rest - '0') * (scale /= 10);
    if (!parse_zone(rest, &offset))
        return -EINVAL;
    struct tm given = tm;
    tm.tm_year -= 1900;
    tm.tm_mon -= 1;
    int64_t seconds = timegm(&tm);
    if (given.tm_year < 1 || tm.tm_mon + 1 != given.tm_mon || tm.tm_mday != given.tm_mday ||
        tm.tm_hour != given.tm_hour || tm.tm_min != given.tm_min || tm.tm_sec != given.tm_sec)
        return -EINVAL; /* the 30th of February */
    *us = (seconds - offset) * 1000000 + fraction;
    return 0;
}
