/* Random (version 4) UUIDs: names of writes, by which one whose answer was lost can be looked up. */
#pragma once

enum { UUID_TEXT = 37 }; /* in text, with the NUL */

/* 0, or -EIO when the kernel gives no random bytes. */
int uuid_new(char out[UUID_TEXT]);

/* Whose a lease is: "host:process id:UUID", so that it is nobody else's, and people see where to look. Errors
 * of uuid_new(). */
enum { UUID_OWNER = 128 };
int uuid_owner(char out[UUID_OWNER]);
