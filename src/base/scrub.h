/* Blanks secrets in text of any kind, valid JSON or not. */
#pragma once

#include <stddef.h>

/*
 * Overwrites in place, length unchanged, with '*': the value of every "password" and "password_hash" key,
 * every bcrypt hash behind its "$2b$10$", and every run of 13 to 19 digits (single spaces or dashes between
 * them allowed) that passes the Luhn check.
 */
void scrub_secrets(char *text, size_t len);
