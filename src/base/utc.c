#include "base/utc.h"

#include <errno.h>
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

int utc_parse(const char *text, int64_t *us)
{
    struct tm tm = {0};
    int n = 0, hours, minutes;
    char sign[2];
    if (sscanf(text, "%4d-%2d-%2d%*1[T ]%2d:%2d:%2d%n", &tm.tm_year, &tm.tm_mon, &tm.tm_mday, &tm.tm_hour,
               &tm.tm_min, &tm.tm_sec, &n) != 6 ||
        n != 19)
        return -EINVAL;
    int64_t fraction = 0, scale = 1000000;
    const char *rest = text + n;
    if (*rest == '.')
        for (rest++; *rest >= '0' && *rest <= '9' && scale > 1; rest++)
            fraction += (*rest - '0') * (scale /= 10);
    int64_t offset = 0;
    if (sscanf(rest, "%1[+-]%2d:%2d%n", sign, &hours, &minutes, &n) == 3 && rest[n] == '\0')
        offset = (*sign == '-' ? -60 : 60) * (hours * 60 + minutes);
    else if (strcmp(rest, "Z") != 0)
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
