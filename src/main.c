#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "command/command.h"

/* libmongoc makes a file for mongoc-stat in /dev/shm before main() begins, and removes it when the process
 * ends: one that is killed would leave it to the machine. */
static void leave_no_counters(void)
{
    char name[32];
    snprintf(name, sizeof name, "/mongoc-%ld", (long)getpid());
    shm_unlink(name);
}

int main(int argc, char **argv)
{
    leave_no_counters();
    return command_main(argc, argv);
}
