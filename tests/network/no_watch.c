/*
 * Has the system refuse a watch over a folder for as long as the file that LONNET_NO_WATCH names is there: to be preloaded
 * (LD_PRELOAD). The system's own bound is for all processes of a user, and so none that a test may lower.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

int inotify_init1(int flags)
{
    static int (*next)(int);
    const char *refused = getenv("LONNET_NO_WATCH");
    if (refused && access(refused, F_OK) == 0) {
        errno = EMFILE;
        return -1;
    }
    if (!next)
        next = (int (*)(int))dlsym(RTLD_NEXT, "inotify_init1");
    return next(flags);
}
