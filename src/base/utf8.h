/* UTF-8 as RFC 3629 has it: nothing overlong, no surrogates, nothing beyond U+10FFFF. */
#pragma once

#include <stddef.h>

/* Bytes of the character at `p`, of which `left` bytes (1 or more) can be read; 0 when there is none. */
size_t utf8_sequence(const unsigned char *p, size_t left);
/* Makes UTF-8 of a text in place: what is none becomes '?', a last character that was cut off goes. */
void utf8_clean(char *text);
