/*
 * A name server far away: stands before the C library's getaddrinfo, and takes $LONNET_TEST_LOOKUP_TAKES milliseconds
 * before it lets that answer.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <netdb.h>
#include <stdlib.h>
#include <time.h>

typedef int lookup(const char *, const char *, const struct addrinfo *, struct addrinfo **);

int getaddrinfo(const char *restrict name, const char *restrict service, const struct addrinfo *restrict hints,
                struct addrinfo **restrict found)
{
    const char *text = getenv("LONNET_TEST_LOOKUP_TAKES");
    long takes = text ? atol(text) : 0;
    struct timespec pause = {takes / 1000, takes % 1000 * 1000000};
    lookup *real = (lookup *)dlsym(RTLD_NEXT, "getaddrinfo");
    nanosleep(&pause, NULL);
    return real ? real(name, service, hints, found) : EAI_SYSTEM;
}
