#include "media/path.h"

#include <string.h>

#include "media/revision.h"

int64_t media_path_course(const char *name, size_t len)
{
    int64_t id = 0;
    if (len == 0 || len > 12 || name[0] == '0')
        return 0;
    for (size_t i = 0; i < len; i++) {
        if (name[i] < '0' || name[i] > '9')
            return 0;
        id = id * 10 + (name[i] - '0');
    }
    return id < MEDIA_COURSE_END ? id : 0;
}

size_t media_path_name(const char *path)
{
    return strcspn(path, "/");
}

static const char *wrong_name(const char *name, size_t len)
{
    if (len == 0)
        return "it has an empty name";
    if (len > MEDIA_NAME_MAX)
        return "a name has more than 255 bytes";
    if ((len == 1 && name[0] == '.') || (len == 2 && name[0] == '.' && name[1] == '.'))
        return "a name is . or ..";
    return len == 5 && memcmp(name, ".meta", 5) == 0 ? "the name .meta is taken" : NULL;
}

const char *media_path_wrong(const char *filename, size_t len, bool folder)
{
    if (!filename)
        return "its filename is no text of at most 4095 bytes";
    if (len > MEDIA_FILENAME_MAX)
        return "it is longer than 4095 bytes";
    if (memchr(filename, '\0', len))
        return "it has a NUL byte";
    size_t n = media_path_name(filename);
    if (media_path_course(filename, n) == 0)
        return "it does not begin with a course's id";
    if (n == len)
        return folder ? NULL : "it lies in no course's folder";
    for (const char *name = filename + n; *name;) {
        n = media_path_name(++name);
        const char *why = wrong_name(name, n);
        if (why)
            return why;
        name += n;
    }
    return NULL;
}
