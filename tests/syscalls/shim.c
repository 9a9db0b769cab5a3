/*
 * Makes one system call of a program fail, once: to be preloaded into it (LD_PRELOAD).
 *
 * The file that LONNET_SHIM names is mapped by every process of the program, through fork and exec, so that a call is
 * counted, and fails, once in all of them together; a tracer counts each process by itself, and would fail the same call
 * in each child that replaces a child. A process has one of three roles: the first process (and what it executes in its own
 * place) is the supervisor, what it forks is a child, and what else executes a program with this library is a helper.
 *
 * What a failing call leaves undone:
 * - an error: the call is not made; but `close` is, which frees the descriptor whatever it says.
 * - a short count: the call is made with half of its bytes.
 * The kernel promises whoever waits for edges (epoll) that a read or write which got less than it wanted has found the
 * socket empty or full, and that an edge follows. So it does after a short count or EAGAIN that was made here: the
 * interest of the descriptor is set anew, which makes one if there is more.
 *
 * With no call chosen it only counts. A library that cannot map its file ends the process: a run without it proves nothing.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

/* The calls, in the order of `CALLS` in plan.rs. */
enum call {
    OPEN, OPENDIR, STAT, STATVFS, MKDIR, RENAME, UNLINK, CHMOD, FTRUNCATE, CLOSE,
    READ, PREAD, RECV, RECVMSG, WRITE, PWRITE, SEND, SENDMSG, WRITEV, FSYNC, FDATASYNC,
    SOCKET, SOCKETPAIR, BIND, LISTEN, ACCEPT, CONNECT, SETSOCKOPT, SHUTDOWN,
    EPOLL_CREATE, EPOLL_CTL, EPOLL_WAIT, POLL, WAITPID, EVENTFD, INOTIFY_INIT, INOTIFY_ADD_WATCH, PIPE, DUP, FCNTL, FLOCK,
    MEMFD, FORK, THREAD, EXEC, CLOSE_RANGE, RANDOM,
    CALLS
};

enum role { SUPERVISOR, CHILD, HELPER, ROLES };

/* The file; `struct Control` in shim.rs reads the same. */
struct control {
    uint32_t role;               /* whose call fails */
    uint32_t call;               /* which */
    uint32_t nth;                /* the nth of them, from 1 on; 0: none */
    int32_t error;               /* with this errno; 0: with a short count */
    _Atomic int32_t supervisor;  /* the supervisor's pid */
    _Atomic uint32_t hits;       /* calls that were made to fail */
    _Atomic uint32_t counts[ROLES][CALLS];
    char hit[512];               /* what was made to fail: pid and object */
};

#define WATCHED 4096 /* descriptors whose interest is known; those above get no edge made */

static struct control *control;
static enum role role = HELPER;
static struct { int poll; struct epoll_event event; } watched[WATCHED];

static int (*real_epoll_ctl)(int, int, int, struct epoll_event *);
static int (*real_open)(const char *, int, ...);
static int (*real_close)(int);

/* Interposed functions find the next one of their name at their first call; each is called early, in one thread. */
#define NEXT(name) \
    static __typeof__(&name) next; \
    if (!next) next = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

static void die(const char *what) {
    perror(what);
    _exit(99);
}

__attribute__((constructor)) static void begin(void) {
    const char *file = getenv("LONNET_SHIM");
    if (!file) die("LONNET_SHIM is not set");
    real_open = (__typeof__(real_open))dlsym(RTLD_NEXT, "open");
    real_close = (__typeof__(real_close))dlsym(RTLD_NEXT, "close");
    real_epoll_ctl = (__typeof__(real_epoll_ctl))dlsym(RTLD_NEXT, "epoll_ctl");
    int fd = real_open(file, O_RDWR | O_CLOEXEC);
    if (fd < 0) die("shim: open");
    struct control *map = mmap(NULL, sizeof *map, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED) die("shim: mmap");
    real_close(fd);
    for (int i = 0; i < WATCHED; i++) watched[i].poll = -1;
    /* The supervisor keeps its pid when it executes itself anew; one that is gone is followed by the next one started. */
    int32_t known = atomic_load(&map->supervisor);
    if (known == getpid()) {
        role = SUPERVISOR;
    } else if (known == 0 || kill(known, 0) < 0) {
        atomic_store(&map->supervisor, getpid());
        role = SUPERVISOR;
    }
    control = map;
}

static void note(const char *path, int fd) {
    char link[64], object[PATH_MAX] = "";
    if (path) {
        snprintf(object, sizeof object, "%s", path);
    } else if (fd >= 0) {
        snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
        ssize_t length = readlink(link, object, sizeof object - 1);
        if (length >= 0) object[length] = 0;
    }
    snprintf(control->hit, sizeof control->hit, "%d %.480s", getpid(), object);
}

/* Counts a call; whether this is the one to fail. Leaves errno as it was. */
static int fails(enum call call, const char *path, int fd) {
    if (!control) return 0;
    uint32_t count = atomic_fetch_add(&control->counts[role][call], 1) + 1;
    if (control->call != call || control->role != role || control->nth != count) return 0;
    int kept = errno;
    note(path, fd);
    atomic_fetch_add(&control->hits, 1);
    errno = kept;
    return 1;
}

static int failed(void) {
    errno = control->error;
    return -1;
}

static int is_short(void) { return control->error == 0; }

/* Has an edge follow: see the head of this file. */
static void edge(int fd) {
    if (fd < 0 || fd >= WATCHED || watched[fd].poll < 0) return;
    int kept = errno;
    struct epoll_event event = watched[fd].event;
    real_epoll_ctl(watched[fd].poll, EPOLL_CTL_MOD, fd, &event);
    errno = kept;
}

static size_t half(size_t length) { return length > 1 ? length / 2 : length; }

/* A function that fails with -1 and errno, and is not made then. */
#define FAILING(result, name, CALL, parameters, arguments, path, fd) \
    result name parameters { \
        NEXT(name); \
        if (fails(CALL, path, fd)) return failed(); \
        return next arguments; \
    }

/* One that moves bytes. */
#define MOVING(name, CALL, parameters, arguments, short_arguments, fd) \
    ssize_t name parameters { \
        NEXT(name); \
        if (fails(CALL, NULL, fd)) { \
            ssize_t done = is_short() ? next short_arguments : failed(); \
            if (is_short() || control->error == EAGAIN) edge(fd); \
            return done; \
        } \
        return next arguments; \
    }

static mode_t mode_of(int flags, va_list more) {
    return (flags & O_CREAT) || (flags & O_TMPFILE) == O_TMPFILE ? va_arg(more, mode_t) : 0;
}

#define OPENING(name) \
    int name(const char *path, int flags, ...) { \
        NEXT(name); \
        va_list more; \
        va_start(more, flags); \
        mode_t mode = mode_of(flags, more); \
        va_end(more); \
        if (fails(OPEN, path, -1)) return failed(); \
        return next(path, flags, mode); \
    }

OPENING(open)
OPENING(open64)

DIR *opendir(const char *path) {
    NEXT(opendir);
    if (fails(OPENDIR, path, -1)) return failed(), NULL;
    return next(path);
}

/* The path, where the call is not about the descriptor itself. */
static const char *named(const char *path) {
    const char *volatile given = path; /* said to be non-null in its declaration, and is not: to ask whether there is a statx */
    return given && *given ? path : NULL;
}

FAILING(int, stat64, STAT, (const char *path, struct stat64 *to), (path, to), path, -1)
FAILING(int, lstat64, STAT, (const char *path, struct stat64 *to), (path, to), path, -1)
FAILING(int, fstat64, STAT, (int fd, struct stat64 *to), (fd, to), NULL, fd)
FAILING(int, statx, STAT,
        (int dir, const char *restrict path, int flags, unsigned mask, struct statx *restrict to),
        (dir, path, flags, mask, to), named(path), dir)
FAILING(int, statvfs, STATVFS, (const char *restrict path, struct statvfs *restrict to), (path, to), path, -1)
FAILING(int, mkdir, MKDIR, (const char *path, mode_t mode), (path, mode), path, -1)
FAILING(int, rename, RENAME, (const char *from, const char *to), (from, to), to, -1)
FAILING(int, unlink, UNLINK, (const char *path), (path), path, -1)
FAILING(int, chmod, CHMOD, (const char *path, mode_t mode), (path, mode), path, -1)
FAILING(int, ftruncate64, FTRUNCATE, (int fd, off64_t length), (fd, length), NULL, fd)
FAILING(int, fsync, FSYNC, (int fd), (fd), NULL, fd)
FAILING(int, fdatasync, FDATASYNC, (int fd), (fd), NULL, fd)

int close(int fd) {
    int fail = fails(CLOSE, NULL, fd);
    if (fd >= 0 && fd < WATCHED) watched[fd].poll = -1;
    int done = real_close(fd);
    return fail ? failed() : done;
}

MOVING(read, READ, (int fd, void *to, size_t length), (fd, to, length), (fd, to, half(length)), fd)
MOVING(pread64, PREAD, (int fd, void *to, size_t length, off64_t at), (fd, to, length, at),
       (fd, to, half(length), at), fd)
MOVING(recv, RECV, (int fd, void *to, size_t length, int flags), (fd, to, length, flags),
       (fd, to, half(length), flags), fd)
MOVING(write, WRITE, (int fd, const void *from, size_t length), (fd, from, length), (fd, from, half(length)), fd)
MOVING(pwrite64, PWRITE, (int fd, const void *from, size_t length, off64_t at), (fd, from, length, at),
       (fd, from, half(length), at), fd)
MOVING(send, SEND, (int fd, const void *from, size_t length, int flags), (fd, from, length, flags),
       (fd, from, half(length), flags), fd)

/* The first buffer, or half of it when it is the only one. */
ssize_t writev(int fd, const struct iovec *parts, int count) {
    NEXT(writev);
    if (fails(WRITEV, NULL, fd)) {
        struct iovec first = parts[0];
        if (count == 1) first.iov_len = half(first.iov_len);
        ssize_t done = is_short() ? next(fd, &first, 1) : failed();
        if (is_short() || control->error == EAGAIN) edge(fd);
        return done;
    }
    return next(fd, parts, count);
}

/* Packets with descriptors: there is no short count that the kernel could give. */
FAILING(ssize_t, recvmsg, RECVMSG, (int fd, struct msghdr *message, int flags), (fd, message, flags), NULL, fd)
FAILING(ssize_t, sendmsg, SENDMSG, (int fd, const struct msghdr *message, int flags), (fd, message, flags), NULL, fd)

FAILING(int, socket, SOCKET, (int domain, int type, int protocol), (domain, type, protocol), NULL, -1)
FAILING(int, socketpair, SOCKETPAIR, (int domain, int type, int protocol, int ends[2]),
        (domain, type, protocol, ends), NULL, -1)
FAILING(int, bind, BIND, (int fd, const struct sockaddr *address, socklen_t length), (fd, address, length), NULL, fd)
FAILING(int, listen, LISTEN, (int fd, int backlog), (fd, backlog), NULL, fd)
FAILING(int, accept4, ACCEPT, (int fd, struct sockaddr *restrict address, socklen_t *restrict length, int flags),
        (fd, address, length, flags), NULL, fd)
FAILING(int, connect, CONNECT, (int fd, const struct sockaddr *address, socklen_t length),
        (fd, address, length), NULL, fd)
FAILING(int, setsockopt, SETSOCKOPT, (int fd, int level, int name, const void *value, socklen_t length),
        (fd, level, name, value, length), NULL, fd)
FAILING(int, shutdown, SHUTDOWN, (int fd, int how), (fd, how), NULL, fd)

FAILING(int, epoll_create1, EPOLL_CREATE, (int flags), (flags), NULL, -1)
FAILING(int, epoll_wait, EPOLL_WAIT, (int poll, struct epoll_event *to, int most, int milliseconds),
        (poll, to, most, milliseconds), NULL, poll)
FAILING(int, poll, POLL, (struct pollfd *fds, nfds_t count, int milliseconds), (fds, count, milliseconds), NULL, -1)
FAILING(pid_t, waitpid, WAITPID, (pid_t pid, int *status, int options), (pid, status, options), NULL, -1)
FAILING(int, eventfd, EVENTFD, (unsigned start, int flags), (start, flags), NULL, -1)
FAILING(int, inotify_init1, INOTIFY_INIT, (int flags), (flags), NULL, -1)
FAILING(int, inotify_add_watch, INOTIFY_ADD_WATCH, (int fd, const char *path, uint32_t mask), (fd, path, mask),
        path, -1)
FAILING(int, pipe2, PIPE, (int ends[2], int flags), (ends, flags), NULL, -1)
FAILING(int, flock, FLOCK, (int fd, int how), (fd, how), NULL, fd)
FAILING(int, memfd_create, MEMFD, (const char *name, unsigned flags), (name, flags), name, -1)

int epoll_ctl(int poll, int what, int fd, struct epoll_event *event) {
    if (what != EPOLL_CTL_DEL && fails(EPOLL_CTL, NULL, fd)) return failed(); /* that needs nothing, and cannot fail */
    int done = real_epoll_ctl(poll, what, fd, event);
    if (done == 0 && fd >= 0 && fd < WATCHED) {
        watched[fd].poll = what == EPOLL_CTL_DEL ? -1 : poll;
        if (event) watched[fd].event = *event;
    }
    return done;
}

int fcntl(int fd, int command, ...) {
    NEXT(fcntl);
    va_list more;
    va_start(more, command);
    void *argument = va_arg(more, void *);
    va_end(more);
    /* The others ask for flags and set them, and cannot fail on a descriptor that is open. */
    int fail = command == F_DUPFD || command == F_DUPFD_CLOEXEC ? fails(DUP, NULL, fd)
             : command == F_OFD_SETLK                           ? fails(FCNTL, NULL, fd)
                                                                : 0;
    return fail ? failed() : next(fd, command, argument);
}

pid_t fork(void) {
    NEXT(fork);
    if (fails(FORK, NULL, -1)) return failed();
    pid_t pid = next();
    if (pid == 0 && role == SUPERVISOR) role = CHILD;
    return pid;
}

int pthread_create(pthread_t *restrict thread, const pthread_attr_t *restrict attributes, void *(*run)(void *),
                   void *restrict argument) {
    NEXT(pthread_create);
    if (fails(THREAD, NULL, -1)) return control->error;
    return next(thread, attributes, run, argument);
}

int execve(const char *path, char *const arguments[], char *const environment[]) {
    NEXT(execve);
    if (fails(EXEC, path, -1)) return failed();
    return next(path, arguments, environment);
}

ssize_t getrandom(void *to, size_t length, unsigned flags) {
    NEXT(getrandom);
    if (fails(RANDOM, NULL, -1)) return failed();
    return next(to, length, flags);
}

long syscall(long number, ...) {
    NEXT(syscall);
    long a[6];
    va_list more;
    va_start(more, number);
    for (int i = 0; i < 6; i++) a[i] = va_arg(more, long);
    va_end(more);
    if (number == SYS_close_range && fails(CLOSE_RANGE, NULL, -1)) return failed();
    return next(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}
