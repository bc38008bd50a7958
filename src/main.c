#include <stdlib.h>

#include "command/command.h"

int main(int argc, char **argv)
{
    /* Counters for mongoc-stat, in a file of /dev/shm that a killed mount would leave there. Set here, where
     * nobody else reads the environment yet. */
    setenv("MONGOC_DISABLE_SHM", "1", 0);
    return command_main(argc, argv);
}
