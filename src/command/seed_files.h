/* Small files that real programs open: film, sound, captions and text, made of nothing but their parameters.
 */
#pragma once

#include <stdint.h>

#include "base/buf.h"
#include "command/seed_words.h"

enum { SEED_FILM_MS = 2000, SEED_SOUND_MS = 1000 };

/* All append a whole file and return 0 or -ENOMEM. `hue` and `tune` are any number and give different ones.
 */

/* AVI: two seconds of a moving gradient, uncompressed, 32 by 24 pixels. */
int seed_files_film(struct buf *out, uint64_t hue);
/* WAV: a second of four tones, 16 bits at 8 kHz. */
int seed_files_sound(struct buf *out, uint64_t tune);
/* WebVTT: captions of the film. */
int seed_files_captions(struct buf *out, struct seed_span title, struct seed_span line);
/* PDF: one page; its title is any UTF-8, the text on the page ASCII, as the fonts of every reader have it. */
int seed_files_page(struct buf *out, struct seed_span title, const char *text);
