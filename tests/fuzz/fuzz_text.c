/*
 * Fuzzes the pure functions that see foreign bytes: the layout and the checks of JSON, the blanking of secrets, the
 * names in a folder. tests/test_fuzz.py builds it with the sanitizers; run as
 *
 *   fuzz_text SEED RUNS [FILE...]
 *
 * Deterministic: an input is a mutation of the given files and of the seeds below, by a generator started from SEED.
 * It aborts where a property does not hold, and prints the input. LLVMFuzzerTestOneInput() is libFuzzer's entry, for
 * who wants to fuzz for longer: clang -fsanitize=fuzzer -DFUZZ_WITHOUT_MAIN.
 */
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/json.h"
#include "base/scrub.h"
#include "tree/name.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const uint8_t *shown;
static size_t shown_len;

static void require(int holds, const char *property)
{
    if (holds)
        return;
    fprintf(stderr, "violated: %s\ninput, %zu bytes: ", property, shown_len);
    for (size_t i = 0; i < shown_len; i++)
        fprintf(stderr, shown[i] >= 0x20 && shown[i] < 0x7f ? "%c" : "\\x%02x", shown[i]);
    fputc('\n', stderr);
    abort();
}

/* A second layout changes nothing, and what is valid stays valid. */
static void check_layout(const char *text, size_t len, int valid)
{
    struct buf once CLEANUP(buf_clear) = {0}, twice CLEANUP(buf_clear) = {0};
    bool unfinished;
    int r = json_layout(text, len, &once);
    require(r == 0 || !valid, "valid JSON is laid out");
    if (r < 0)
        return;
    require(json_layout(once.data, once.len, &twice) == 0, "a layout can be laid out");
    require(once.len == twice.len && memcmp(once.data, twice.data, once.len) == 0, "a layout is canonical");
    struct buf line CLEANUP(buf_clear) = {0}, same CLEANUP(buf_clear) = {0};
    require(json_compact(text, len, &line) == 0 && json_compact(once.data, once.len, &same) == 0, "what is laid out has a line");
    require(line.len == same.len && memcmp(line.data, same.data, line.len) == 0, "a layout has the line of its text");
    if (valid) {
        require(memchr(line.data, '\n', line.len) == line.data + line.len - 1, "a line is one");
        require(json_check(line.data, line.len, &unfinished, NULL) == 0, "a line is as valid as its text");
    }
    if (valid)
        require(json_check(once.data, once.len, &unfinished, NULL) == 0, "a layout is as valid as its text");
}

/* The beginning of a valid document is never refused while it is being written. */
static void check_prefixes(const char *text, size_t len)
{
    for (size_t n = 0; n <= len; n += len > 256 ? len / 64 : 1)
        require(json_check_prefix(text, n, NULL, NULL) == 0, "the beginning of a valid document is not refused");
}

static void check_scrub(const char *text, size_t len)
{
    char *copy CLEANUP(freep) = malloc(len + 1);
    require(copy != NULL, "memory");
    memcpy(copy, text, len);
    copy[len] = '\0';
    scrub_secrets(copy, len);
    for (size_t i = 0; i < len; i++)
        require(copy[i] == text[i] || copy[i] == '*', "blanking writes asterisks only");
    require(copy[len] == '\0', "blanking keeps the length");
}

static void check_name(const char *text, size_t len)
{
    char name[256], again[32];
    int64_t id = 0;
    size_t n = strnlen(text, len < 255 ? len : 255);
    memcpy(name, text, n);
    name[n] = '\0';
    if (name_parse(name, &id) != NAME_ROW)
        return;
    snprintf(again, sizeof again, "%lld.json", (long long)id);
    require(strcmp(again, name) == 0, "a row has one name");
}

static void check_string(const char *text, size_t len)
{
    struct buf out CLEANUP(buf_clear) = {0};
    bool unfinished;
    require(buf_add_text(&out, "{\"a\":") == 0 && json_add_string(&out, text, len) == 0 &&
                buf_add_char(&out, '}') == 0, "a string is written");
    if (!len || !memchr(text, 0, len)) /* jansson takes no \u0000 */
        require(json_check(out.data, out.len, &unfinished, NULL) == 0, "any bytes become a JSON string");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *text = (const char *)data;
    bool unfinished;
    shown = data;
    shown_len = size;
    int valid = json_check(text, size, &unfinished, NULL) == 0;
    require(!(valid && unfinished), "what is valid is finished");
    check_layout(text, size, valid);
    if (valid)
        check_prefixes(text, size);
    check_scrub(text, size);
    check_name(text, size);
    check_string(text, size);
    return 0;
}

#ifndef FUZZ_WITHOUT_MAIN
enum { SEEDS_MAX = 64, INPUT_MAX = 4096, MUTATIONS = 6 };

static const char *const builtin[] = {
    "{\"id\": 1, \"a\": [1, -2.50, 1e400, true, null], \"o\": {}, \"e\": [], \"s\": \"\\u00e9\\n\\\"\\\\ \x7f\"}",
    "{\"password\": \"secret\", \"token\": \"4111 1111 1111 1111\", \"n\": 0.1000000000000000055}",
    "{\"\\ud83d\\ude00\": \"\xf0\x9f\x98\x80\", \"modules\": [{\"lessons\": [{\"id\": 7}]}]}",
    "{\"s\": \"\\u00e9\\\\\\\\u00n\\\"\\\\\"}", /* pairs of backslashes, cut anywhere */
    "1001.json", "01.json", "274877906944.json", "\xef\xbb\xbf{}", "{\"a\": \"\xed\xa0\x80\"}",
};
static const char *const tokens[] = {"{", "}", "[", "]", "\"", ":", ",", "\\", "\\u00", "\"password\":", "4111111111111111",
                                     ".json", "\xc3", "1e", "-", "null", "\n", " "};

static uint64_t state;

/* splitmix64 */
static uint64_t next_random(void)
{
    uint64_t z = (state += UINT64_C(0x9e3779b97f4a7c15));
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

static size_t mutate(uint8_t *data, size_t len)
{
    size_t at = len ? next_random() % len : 0;
    const char *token = tokens[next_random() % (sizeof tokens / sizeof tokens[0])];
    size_t n = strlen(token);
    switch (next_random() % 5) {
    case 0:
        if (len)
            data[at] = (uint8_t)next_random();
        return len;
    case 1: /* cut the end */
        return at;
    case 2: /* take a piece out */
        n = len - at < 8 ? len - at : 8;
        memmove(data + at, data + at + n, len - at - n);
        return len - n;
    case 3: /* double a piece */
        n = len - at < 64 ? len - at : 64;
        if (len + n > INPUT_MAX)
            return len;
        memmove(data + at + n, data + at, len - at);
        return len + n;
    default:
        if (len + n > INPUT_MAX)
            return len;
        memmove(data + at + n, data + at, len - at);
        memcpy(data + at, token, n);
        return len + n;
    }
}

static size_t load(const char *path, uint8_t *out)
{
    FILE *file = fopen(path, "rb");
    size_t n = file ? fread(out, 1, INPUT_MAX, file) : 0;
    if (file)
        fclose(file);
    return n;
}

int main(int argc, char **argv)
{
    static uint8_t seeds[SEEDS_MAX][INPUT_MAX];
    size_t lens[SEEDS_MAX], n = 0;
    if (argc < 3)
        return fprintf(stderr, "usage: fuzz_text SEED RUNS [FILE...]\n"), 64;
    state = strtoull(argv[1], NULL, 10);
    for (; n < sizeof builtin / sizeof builtin[0]; n++) {
        lens[n] = strlen(builtin[n]);
        memcpy(seeds[n], builtin[n], lens[n]);
    }
    for (int i = 3; i < argc && n < SEEDS_MAX; i++, n++)
        lens[n] = load(argv[i], seeds[n]);
    for (size_t i = 0; i < n; i++)
        LLVMFuzzerTestOneInput(seeds[i], lens[i]);
    unsigned long runs = strtoul(argv[2], NULL, 10);
    for (unsigned long i = 0; i < runs; i++) {
        size_t seed = next_random() % n, len = lens[seed];
        /* A block of its own size, so that the sanitizer sees a byte read behind it. */
        uint8_t work[INPUT_MAX];
        memcpy(work, seeds[seed], len);
        for (uint64_t k = 1 + next_random() % MUTATIONS; k > 0; k--)
            len = mutate(work, len);
        uint8_t *exact = malloc(len ? len : 1);
        if (!exact)
            return 1;
        memcpy(exact, work, len);
        LLVMFuzzerTestOneInput(exact, len);
        free(exact);
    }
    printf("%lu inputs, no property violated\n", runs);
    return 0;
}
#endif
