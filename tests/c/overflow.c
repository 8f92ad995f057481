/* A planted overflow, which a sanitized build has to catch. */

#include <limits.h>
#include <stdio.h>

int
main(int argc, char **argv)
{
    (void)argv;
    volatile int most = INT_MAX;
    int sum = most + argc;
    printf("%d\n", sum);
    return 0;
}
