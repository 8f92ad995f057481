/* Does a child of fork(2) hang when it starts a thread, while threads of its parent begin and end?
   POSIX forbids to start one there; the C library lets it, and the closer relies on that. Ends with
   0 if no child hung, else with 1. */

#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <sys/wait.h>
#include <unistd.h>

static void *
nothing(void *unused)
{
    return unused;
}

static void *
begin_and_end(void *unused)
{
    for (;;) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, nothing, NULL) == 0) {
            pthread_join(thread, NULL);
        }
    }
    return unused;
}

int
main(void)
{
    pthread_t thread;
    if (pthread_create(&thread, NULL, begin_and_end, NULL) != 0) {
        return 2;
    }
    for (int i = 0; i < 10000; i++) {
        pid_t child = fork();
        if (child == 0) {
            alarm(5);
            if (pthread_create(&thread, NULL, nothing, NULL) == 0) {
                pthread_join(thread, NULL);
            }
            _exit(0);
        }
        int status;
        waitpid(child, &status, 0);
        if (WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM) {
            _exit(1);
        }
    }
    _exit(0);
}
