#include "base/fail.h"

#include <stdarg.h>
#include <stdio.h>

int fail_set(struct fail *f, int err, const char *format, ...)
{
    if (f && f->err == 0) {
        f->err = err;
        va_list args;
        va_start(args, format);
        vsnprintf(f->message, sizeof f->message, format, args);
        va_end(args);
    }
    return -err;
}
