/*
 * Kills its process with SIGKILL as it is about to tell a program `con_delayed`, when the message is on disk, if the file that
 * LONNET_TEST_DIE names is there, and removes that file: to be preloaded (LD_PRELOAD).
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static void look(const void *bytes, size_t length)
{
    static const char said[] = "con_delayed\n";
    const char *marker = getenv("LONNET_TEST_DIE");
    if (length == sizeof said - 1 && memcmp(bytes, said, length) == 0 && marker && unlink(marker) == 0)
        raise(SIGKILL);
}

ssize_t write(int fd, const void *bytes, size_t length)
{
    static ssize_t (*next)(int, const void *, size_t);
    if (!next)
        next = (ssize_t (*)(int, const void *, size_t))dlsym(RTLD_NEXT, "write");
    look(bytes, length);
    return next(fd, bytes, length);
}

ssize_t send(int fd, const void *bytes, size_t length, int flags)
{
    static ssize_t (*next)(int, const void *, size_t, int);
    if (!next)
        next = (ssize_t (*)(int, const void *, size_t, int))dlsym(RTLD_NEXT, "send");
    look(bytes, length);
    return next(fd, bytes, length, flags);
}
