#include "base/utf8.h"

#include <stdbool.h>
#include <string.h>

size_t utf8_sequence(const unsigned char *p, size_t left)
{
    size_t n = *p < 0x80                 ? 1
               : *p >= 0xc2 && *p < 0xe0 ? 2
               : (*p & 0xf0) == 0xe0     ? 3
               : *p >= 0xf0 && *p < 0xf5 ? 4
                                         : 0;
    if (n == 0 || n > left)
        return 0;
    for (size_t i = 1; i < n; i++)
        if ((p[i] & 0xc0) != 0x80)
            return 0;
    if ((*p == 0xe0 && p[1] < 0xa0) || (*p == 0xed && p[1] > 0x9f) || (*p == 0xf0 && p[1] < 0x90) ||
        (*p == 0xf4 && p[1] > 0x8f))
        return 0;
    return n;
}

/* Whether these bytes are the beginning of a character that needs more. */
static bool is_cut_off(const unsigned char *p, size_t left)
{
    size_t more = *p >= 0xf0 ? 3 : *p >= 0xe0 ? 2 : *p >= 0xc0 ? 1 : 0;
    for (size_t i = 1; i < left; i++)
        if ((p[i] & 0xc0) != 0x80)
            return false;
    return left <= more;
}

void utf8_clean(char *text)
{
    unsigned char *p = (unsigned char *)text, *end = p + strlen(text);
    for (size_t n; p < end; p += n ? n : 1) {
        n = utf8_sequence(p, (size_t)(end - p));
        if (n == 0)
            *p = is_cut_off(p, (size_t)(end - p)) ? '\0' : '?';
        if (*p == '\0')
            return;
    }
}
