/* Exits with 1 where a descriptor above 2 is open that /proc says is ARGV[1], else with 0. */

#define _GNU_SOURCE
#include <dirent.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

int
main(int argc, char **argv)
{
    char path[300], target[300];
    DIR *folder = opendir("/proc/self/fd");
    if (argc != 2 || folder == NULL) {
        return 2;
    }
    for (struct dirent *entry; (entry = readdir(folder)) != NULL;) {
        snprintf(path, sizeof(path), "/proc/self/fd/%s", entry->d_name);
        ssize_t size = readlink(path, target, sizeof(target) - 1);
        if (size > 0) {
            target[size] = 0;
            if (strstr(target, argv[1]) != NULL) {
                return 1;
            }
        }
    }
    return 0;
}
