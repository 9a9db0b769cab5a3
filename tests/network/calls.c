/*
 * Who makes connections: stands before the C library's calls, and notes in the file $LONNET_TEST_CALLS, a line each,
 * which process makes a TCP socket, connects it, or looks a name up.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static void note(const char *call)
{
    const char *path = getenv("LONNET_TEST_CALLS");
    char line[64];
    int file = path ? open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600) : -1;
    if (file < 0)
        return;
    snprintf(line, sizeof line, "%d %s\n", getpid(), call);
    if (write(file, line, strlen(line)) < 0)
        perror("note a call");
    close(file);
}

static int is_of_the_net(int family)
{
    return family == AF_INET || family == AF_INET6;
}

int socket(int family, int type, int protocol)
{
    int (*real)(int, int, int) = (int (*)(int, int, int))dlsym(RTLD_NEXT, "socket");
    if (is_of_the_net(family))
        note("socket");
    return real(family, type, protocol);
}

int connect(int number, const struct sockaddr *address, socklen_t length)
{
    int (*real)(int, const struct sockaddr *, socklen_t) =
        (int (*)(int, const struct sockaddr *, socklen_t))dlsym(RTLD_NEXT, "connect");
    if (is_of_the_net(address->sa_family))
        note("connect");
    return real(number, address, length);
}

int getaddrinfo(const char *restrict name, const char *restrict service, const struct addrinfo *restrict hints,
                struct addrinfo **restrict found)
{
    int (*real)(const char *, const char *, const struct addrinfo *, struct addrinfo **) =
        (int (*)(const char *, const char *, const struct addrinfo *, struct addrinfo **))dlsym(RTLD_NEXT, "getaddrinfo");
    note("getaddrinfo");
    return real(name, service, hints, found);
}
