#include "tree/name.h"

#include <stdbool.h>
#include <stddef.h>
#include <string.h>
#include <strings.h>

#include "entity/collection.h"

static const struct {
    const char *name;
    enum name_kind kind;
} fixed[] = {
    {"new.json", NAME_NEW},     {".next-id", NAME_NEXT_ID}, {".refused", NAME_REFUSED},
    {".deleted", NAME_DELETED}, {".by", NAME_BY},           {".export.jsonl", NAME_EXPORT},
};

enum name_kind name_parse(const char *name, int64_t *id)
{
    for (size_t i = 0; i < sizeof fixed / sizeof fixed[0]; i++)
        if (strcmp(name, fixed[i].name) == 0)
            return fixed[i].kind;
    const char *digits = name + (*name == '+' || *name == '-');
    size_t n = strspn(digits, "0123456789");
    if (n == 0 || strcasecmp(digits + n, ".json") != 0)
        return NAME_SCRATCH;
    if (digits != name || *digits == '0' || n > 12 || strcmp(digits + n, ".json") != 0)
        return NAME_MISTAKEN;
    int64_t value = 0;
    for (size_t i = 0; i < n; i++)
        value = 10 * value + (digits[i] - '0');
    if (value >= ROW_ID_END)
        return NAME_MISTAKEN;
    *id = value;
    return NAME_ROW;
}
