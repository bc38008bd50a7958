#include "command/seed_files.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* ---- RIFF: film and sound ---- */

static int add_u32(struct buf *out, uint32_t value)
{
    uint8_t bytes[4] = {(uint8_t)value, (uint8_t)(value >> 8), (uint8_t)(value >> 16),
                        (uint8_t)(value >> 24)};
    return buf_add(out, bytes, sizeof(bytes));
}

static int add_u16(struct buf *out, unsigned value)
{
    uint8_t bytes[2] = {(uint8_t)value, (uint8_t)(value >> 8)};
    return buf_add(out, bytes, sizeof(bytes));
}

static int add_u32s(struct buf *out, const uint32_t *values, size_t n)
{
    int r = 0;
    for (size_t i = 0; r == 0 && i < n; i++)
        r = add_u32(out, values[i]);
    return r;
}

/* A chunk's name and size; a list's size is that of what follows its kind. */
static int add_chunk(struct buf *out, const char *name, uint32_t size)
{
    int r = buf_add(out, name, 4);
    return r < 0 ? r : add_u32(out, size);
}

static int add_list(struct buf *out, const char *name, uint32_t size, const char *kind)
{
    int r = add_chunk(out, name, size + 4);
    return r < 0 ? r : buf_add(out, kind, 4);
}

enum {
    WIDTH = 32,
    HEIGHT = 24,
    RATE = 5,
    FRAMES = RATE * SEED_FILM_MS / 1000,
    FRAME = WIDTH * HEIGHT * 3,
    HEADERS = 8 + 56 + 12 + 8 + 56 + 8 + 40, /* avih, and the list of one stream with its two headers */
    MOVIE = FRAMES * (8 + FRAME),
    INDEX = FRAMES * 16,
};

static int add_film_headers(struct buf *out)
{
    enum { HAS_INDEX = 0x10 };
    static const uint32_t main_header[14] = {1000000 / RATE, FRAME * RATE, 0,     HAS_INDEX, FRAMES, 0, 1,
                                             FRAME,          WIDTH,        HEIGHT};
    static const uint32_t stream[9] = {0, 0, 0, 1, RATE, 0, FRAMES, FRAME, UINT32_MAX};
    static const uint32_t bitmap[10] = {40, WIDTH, HEIGHT, 1 | 24 << 16, 0, FRAME};
    int r = add_list(out, "LIST", HEADERS, "hdrl");
    r = r < 0 ? r : add_chunk(out, "avih", sizeof(main_header));
    r = r < 0 ? r : add_u32s(out, main_header, 14);
    r = r < 0 ? r : add_list(out, "LIST", 8 + 56 + 8 + 40, "strl");
    r = r < 0 ? r : add_chunk(out, "strh", 56);
    r = r < 0 ? r : buf_add(out, "vidsDIB ", 8);
    r = r < 0 ? r : add_u32s(out, stream, 9);
    r = r < 0 ? r : add_u32s(out, (const uint32_t[]){0, 0, WIDTH | HEIGHT << 16}, 3); /* sample size, frame */
    r = r < 0 ? r : add_chunk(out, "strf", 40);
    return r < 0 ? r : add_u32s(out, bitmap, 10);
}

static int add_frame(struct buf *out, unsigned frame, uint64_t hue)
{
    uint8_t pixels[FRAME];
    for (unsigned y = 0; y < HEIGHT; y++)
        for (unsigned x = 0; x < WIDTH; x++) {
            uint8_t *p = pixels + (size_t)(y * WIDTH + x) * 3;
            p[0] = (uint8_t)(x * 8 + frame * 12 + hue);
            p[1] = (uint8_t)(y * 10 + frame * 6 + (hue >> 8));
            p[2] = (uint8_t)((x + y) * 4 + (hue >> 16));
        }
    int r = add_chunk(out, "00db", FRAME);
    return r < 0 ? r : buf_add(out, pixels, sizeof(pixels));
}

int seed_files_film(struct buf *out, uint64_t hue)
{
    int r = add_list(out, "RIFF", 12 + HEADERS + 12 + MOVIE + 8 + INDEX, "AVI ");
    r = r < 0 ? r : add_film_headers(out);
    r = r < 0 ? r : add_list(out, "LIST", MOVIE, "movi");
    for (unsigned i = 0; r == 0 && i < FRAMES; i++)
        r = add_frame(out, i, hue);
    r = r < 0 ? r : add_chunk(out, "idx1", INDEX);
    for (uint32_t i = 0; r == 0 && i < FRAMES; i++) {
        enum { KEY_FRAME = 0x10 };
        r = buf_add(out, "00db", 4);
        r = r < 0 ? r : add_u32s(out, (const uint32_t[]){KEY_FRAME, 4 + i * (8 + FRAME), FRAME}, 3);
    }
    return r;
}

int seed_files_sound(struct buf *out, uint64_t tune)
{
    enum { HERTZ = 8000, SAMPLES = HERTZ * SEED_SOUND_MS / 1000, BYTES = SAMPLES * 2 };
    static const int halves[] = {15, 13, 12, 10,
                                 9,  8,  7,  6}; /* samples a half wave: a scale from C, nearly */
    int r = add_list(out, "RIFF", 8 + 16 + 8 + BYTES, "WAVE");
    r = r < 0 ? r : add_chunk(out, "fmt ", 16);
    r = r < 0 ? r : add_u32s(out, (const uint32_t[]){1 | 1 << 16, HERTZ, HERTZ * 2, 2 | 16 << 16}, 4);
    r = r < 0 ? r : add_chunk(out, "data", BYTES);
    for (int i = 0; r == 0 && i < SAMPLES; i++) {
        int half = halves[tune >> (i / (SAMPLES / 4) * 3) & 7], at = i % (2 * half);
        int triangle = (at < half ? at : 2 * half - at) * 12000 / half - 6000;
        r = add_u16(out, (unsigned)triangle & 0xffff);
    }
    return r;
}

/* ---- text ---- */

int seed_files_captions(struct buf *out, struct seed_span title, struct seed_span line)
{
    return buf_printf(
        out, "WEBVTT\n\n1\n00:00:00.000 --> 00:00:01.000\n%.*s\n\n2\n00:00:01.000 --> 00:00:02.000\n%.*s\n",
        (int)title.len, title.text, (int)line.len, line.text);
}

/* UTF-8 as the hexadecimal string of UTF-16 that PDF takes; what is outside the BMP becomes U+FFFD. */
static int add_utf16(struct buf *out, struct seed_span text)
{
    int r = buf_add_text(out, "<FEFF");
    for (size_t i = 0; r == 0 && i < text.len;) {
        unsigned char c = (unsigned char)text.text[i];
        unsigned more = c < 0x80 ? 0 : c < 0xe0 ? 1 : c < 0xf0 ? 2 : 3, code = more ? c & (0x3fu >> more) : c;
        for (unsigned k = 1; k <= more; k++)
            code = code << 6 | ((unsigned char)text.text[i + k] & 0x3f);
        r = buf_printf(out, "%04X", code > 0xffff ? 0xfffd : code);
        i += 1 + more;
    }
    return r < 0 ? r : buf_add_char(out, '>');
}

int seed_files_page(struct buf *out, struct seed_span title, const char *text)
{
    size_t objects[6], start = out->len;
    char content[256];
    int len = snprintf(content, sizeof(content), "BT /F1 18 Tf 72 720 Td (%s) Tj ET", text);
    if (len < 0 || (size_t)len >= sizeof(content))
        return -EOVERFLOW;
    int r = buf_add_text(out, "%PDF-1.4\n");
    objects[0] = out->len - start;
    r = r < 0 ? r : buf_add_text(out, "1 0 obj\n<</Type/Catalog/Pages 2 0 R>>\nendobj\n");
    objects[1] = out->len - start;
    r = r < 0 ? r : buf_add_text(out, "2 0 obj\n<</Type/Pages/Kids[3 0 R]/Count 1>>\nendobj\n");
    objects[2] = out->len - start;
    r = r < 0 ? r
              : buf_add_text(out, "3 0 obj\n<</Type/Page/Parent 2 0 R/MediaBox[0 0 595 842]/Contents 4 0 R"
                                  "/Resources<</Font<</F1 5 0 R>>>>>>\nendobj\n");
    objects[3] = out->len - start;
    r = r < 0 ? r : buf_printf(out, "4 0 obj\n<</Length %d>>\nstream\n%s\nendstream\nendobj\n", len, content);
    objects[4] = out->len - start;
    r = r < 0 ? r : buf_add_text(out, "5 0 obj\n<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>\nendobj\n");
    objects[5] = out->len - start;
    r = r < 0 ? r : buf_add_text(out, "6 0 obj\n<</Title");
    r = r < 0 ? r : add_utf16(out, title);
    r = r < 0 ? r : buf_add_text(out, ">>\nendobj\n");
    size_t table = out->len - start;
    r = r < 0 ? r : buf_add_text(out, "xref\n0 7\n0000000000 65535 f \n");
    for (size_t i = 0; r == 0 && i < 6; i++)
        r = buf_printf(out, "%010zu 00000 n \n", objects[i]);
    return r < 0 ? r
                 : buf_printf(out, "trailer\n<</Size 7/Root 1 0 R/Info 6 0 R>>\nstartxref\n%zu\n%%%%EOF\n",
                              table);
}
