/* Preloaded into the program by tests/all/common/job.rs, so that what a test needs comes at a known point of the work and not
 * after a time: file operations below a folder fail as a full or broken disk would, a process is held at one of them until
 * the test has done what it wants to do then, its clock leaps there, or a message between ranks is damaged.
 *
 * SHIM_DIR    only operations on files below this folder count
 * SHIM_ERRNO  the error (a number) with which they fail; 0: none fails
 * SHIM_FROM   number of the first operation that fails, from 1
 * SHIM_UNTIL  number of the last one
 * SHIM_COUNT  file to which the number of operations is written at the end
 *
 * POINT        the operations on paths with this text in them are counted on their own; points are
 * POINT_FROM   those from this number, which is 1 where it is not given,
 * POINT_UNTIL  to this one, which is POINT_FROM where it is not given;
 * POINT_LATER  or so many operations of any kind later
 * POINT_HELD   at a point the process makes a file in this folder and is held until that is gone, or the folder, or until
 *              SIGTERM, SIGINT or SIGUSR1 has come; once one has, it is held no more
 * POINT_MEET   it is held until there are this many such files
 * POINT_LEAP   then its monotonic clock leaps by this number of seconds
 *
 * SHIM_RECV  each pair of numbers that comes by MPI is nonsense: a task that does not exist
 *
 * Each process counts for itself. A variable with _R behind its name holds for rank R of Open MPI only.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <dirent.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define NEXT(type, name) \
    static __typeof__(type) next; \
    if (!next) next = (__typeof__(type))dlsym(RTLD_NEXT, name)

static atomic_long operations, at_path, due, leapt;
static volatile sig_atomic_t asked_to_stop;

static const char *rank(void) {
    return getenv("OMPI_COMM_WORLD_RANK");
}

static const char *setting(const char *name) {
    char own[64];
    const char *text = NULL;
    if (rank()) {
        snprintf(own, sizeof own, "%s_%s", name, rank());
        text = getenv(own);
    }
    return text ? text : getenv(name);
}

static long number(const char *name, long otherwise) {
    const char *text = setting(name);
    return text ? atol(text) : otherwise;
}

/* Number of the files in a folder; -1 if there is none. */
static long count_files(const char *folder) {
    DIR *entries = opendir(folder);
    if (!entries) return -1;
    long count = 0;
    for (struct dirent *entry; (entry = readdir(entries));) count += entry->d_name[0] != '.';
    closedir(entries);
    return count;
}

/* Holds the process at a point. One whose parent is gone is held no more, so that none stays behind. */
static void hold(const char *folder) {
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/%s.%d", folder, rank() ? rank() : "0", getpid());
    FILE *marker = fopen(path, "w");
    if (!marker) return;
    fclose(marker);
    long processes = number("POINT_MEET", LONG_MAX);
    pid_t parent = getppid();
    while (!asked_to_stop && getppid() == parent && access(path, F_OK) == 0) {
        if (count_files(folder) >= processes) return;
        usleep(1000);
    }
    unlink(path);
}

static int is_point(const char *path, long operation) {
    const char *text = setting("POINT");
    if (!text) return 0;
    if (strstr(path, text)) {
        long count = atomic_fetch_add(&at_path, 1) + 1;
        long from = number("POINT_FROM", 1);
        if (count >= from && count <= number("POINT_UNTIL", from))
            atomic_store(&due, operation + number("POINT_LATER", 0));
    }
    return operation == atomic_load(&due);
}

/* An operation on a file. Whether it is to fail, errno then being set. */
static int fails(const char *path) {
    const char *folder = setting("SHIM_DIR");
    if (!folder || !path || strncmp(path, folder, strlen(folder)) != 0) return 0;
    long operation = atomic_fetch_add(&operations, 1) + 1;
    if (is_point(path, operation)) {
        const char *held = setting("POINT_HELD");
        if (held) hold(held);
        atomic_fetch_add(&leapt, number("POINT_LEAP", 0));
    }
    int error = (int)number("SHIM_ERRNO", 0);
    if (!error || operation < number("SHIM_FROM", 1) || operation > number("SHIM_UNTIL", LONG_MAX)) return 0;
    errno = error;
    return 1;
}

static int fails_at(int descriptor) {
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return fails(path);
}

__attribute__((destructor)) static void tell(void) {
    const char *path = setting("SHIM_COUNT");
    FILE *file = path ? fopen(path, "w") : NULL;
    if (!file) return;
    fprintf(file, "%ld\n", atomic_load(&operations));
    fclose(file);
}

ssize_t write(int descriptor, const void *bytes, size_t count) {
    NEXT(ssize_t (*)(int, const void *, size_t), "write");
    return fails_at(descriptor) ? -1 : next(descriptor, bytes, count);
}

ssize_t writev(int descriptor, const struct iovec *parts, int count) {
    NEXT(ssize_t (*)(int, const struct iovec *, int), "writev");
    return fails_at(descriptor) ? -1 : next(descriptor, parts, count);
}

ssize_t pwrite(int descriptor, const void *bytes, size_t count, off_t offset) {
    NEXT(ssize_t (*)(int, const void *, size_t, off_t), "pwrite");
    return fails_at(descriptor) ? -1 : next(descriptor, bytes, count, offset);
}

ssize_t pwrite64(int descriptor, const void *bytes, size_t count, off64_t offset) {
    NEXT(ssize_t (*)(int, const void *, size_t, off64_t), "pwrite64");
    return fails_at(descriptor) ? -1 : next(descriptor, bytes, count, offset);
}

int ftruncate64(int descriptor, off64_t length) {
    NEXT(int (*)(int, off64_t), "ftruncate64");
    return fails_at(descriptor) ? -1 : next(descriptor, length);
}

int fsync(int descriptor) {
    NEXT(int (*)(int), "fsync");
    return fails_at(descriptor) ? -1 : next(descriptor);
}

int rename(const char *from, const char *to) {
    NEXT(int (*)(const char *, const char *), "rename");
    return fails(to) ? -1 : next(from, to);
}

int symlink(const char *target, const char *path) {
    NEXT(int (*)(const char *, const char *), "symlink");
    return fails(path) ? -1 : next(target, path);
}

int mkdir(const char *path, mode_t mode) {
    NEXT(int (*)(const char *, mode_t), "mkdir");
    return fails(path) ? -1 : next(path, mode);
}

static int creates(const char *path, int flags) {
    return (flags & (O_CREAT | O_WRONLY | O_RDWR)) && fails(path);
}

int open64(const char *path, int flags, ...) {
    NEXT(int (*)(const char *, int, ...), "open64");
    va_list arguments;
    va_start(arguments, flags);
    mode_t mode = flags & O_CREAT ? va_arg(arguments, mode_t) : 0;
    va_end(arguments);
    return creates(path, flags) ? -1 : next(path, flags, mode);
}

int open(const char *path, int flags, ...) {
    NEXT(int (*)(const char *, int, ...), "open");
    va_list arguments;
    va_start(arguments, flags);
    mode_t mode = flags & O_CREAT ? va_arg(arguments, mode_t) : 0;
    va_end(arguments);
    return creates(path, flags) ? -1 : next(path, flags, mode);
}

int clock_gettime(clockid_t clock, struct timespec *time) {
    NEXT(int (*)(clockid_t, struct timespec *), "clock_gettime");
    int result = next(clock, time);
    if (clock == CLOCK_MONOTONIC) time->tv_sec += atomic_load(&leapt);
    return result;
}

static void (*handlers[NSIG])(int, siginfo_t *, void *);

static void stop(int signal, siginfo_t *information, void *context) {
    asked_to_stop = 1;
    handlers[signal](signal, information, context);
}

/* The program's handler stays, but is told of here too. */
int sigaction(int signal, const struct sigaction *action, struct sigaction *before) {
    NEXT(int (*)(int, const struct sigaction *, struct sigaction *), "sigaction");
    int stops = signal == SIGTERM || signal == SIGINT || signal == SIGUSR1;
    if (!stops || !action || !(action->sa_flags & SA_SIGINFO)) return next(signal, action, before);
    struct sigaction own = *action;
    handlers[signal] = own.sa_sigaction;
    own.sa_sigaction = stop;
    return next(signal, &own, before);
}

/* Open MPI's MPI_Mrecv; its handles are pointers. */
int MPI_Mrecv(void *bytes, int count, void *type, void **message, void *status) {
    NEXT(int (*)(void *, int, void *, void **, void *), "MPI_Mrecv");
    int result = next(bytes, count, type, message, status);
    if (count == 2 && setting("SHIM_RECV")) *(double *)bytes = 1e12;
    return result;
}
