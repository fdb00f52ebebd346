/* Preloaded into the program by tests/faults.rs: makes file operations below a folder fail as a full or
 * broken disk would, or damages a message between ranks.
 *
 * FAULT_DIR    only files below this folder count
 * FAULT_ERRNO  the error (a number); 0: nothing fails, operations are only counted
 * FAULT_FROM   number of the first operation that fails, from 1
 * FAULT_UNTIL  number of the last one
 * FAULT_COUNT  file to which the number of operations is written at the end
 * FAULT_RECV   rank whose MPI_Recv gets nonsense: a task that does not exist
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static atomic_long operations;

static long number(const char *name, long otherwise) {
    const char *text = getenv(name);
    return text ? atol(text) : otherwise;
}

static int is_below(const char *path) {
    const char *folder = getenv("FAULT_DIR");
    return folder && path && strncmp(path, folder, strlen(folder)) == 0;
}

static int is_descriptor_below(int descriptor) {
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return is_below(path);
}

/* Counts an operation; whether it is to fail, errno then being set. */
static int fails(void) {
    long count = atomic_fetch_add(&operations, 1) + 1;
    int error = (int)number("FAULT_ERRNO", 0);
    if (!error || count < number("FAULT_FROM", 1) || count > number("FAULT_UNTIL", LONG_MAX)) return 0;
    errno = error;
    return 1;
}

__attribute__((destructor)) static void tell(void) {
    const char *path = getenv("FAULT_COUNT");
    FILE *file = path ? fopen(path, "w") : NULL;
    if (!file) return;
    fprintf(file, "%ld\n", atomic_load(&operations));
    fclose(file);
}

#define NEXT(type, name) \
    static __typeof__(type) next; \
    if (!next) next = (__typeof__(type))dlsym(RTLD_NEXT, name)

ssize_t write(int descriptor, const void *bytes, size_t count) {
    NEXT(ssize_t (*)(int, const void *, size_t), "write");
    return is_descriptor_below(descriptor) && fails() ? -1 : next(descriptor, bytes, count);
}

ssize_t writev(int descriptor, const struct iovec *parts, int count) {
    NEXT(ssize_t (*)(int, const struct iovec *, int), "writev");
    return is_descriptor_below(descriptor) && fails() ? -1 : next(descriptor, parts, count);
}

ssize_t pwrite(int descriptor, const void *bytes, size_t count, off_t offset) {
    NEXT(ssize_t (*)(int, const void *, size_t, off_t), "pwrite");
    return is_descriptor_below(descriptor) && fails() ? -1 : next(descriptor, bytes, count, offset);
}

ssize_t pwrite64(int descriptor, const void *bytes, size_t count, off64_t offset) {
    NEXT(ssize_t (*)(int, const void *, size_t, off64_t), "pwrite64");
    return is_descriptor_below(descriptor) && fails() ? -1 : next(descriptor, bytes, count, offset);
}

int ftruncate64(int descriptor, off64_t length) {
    NEXT(int (*)(int, off64_t), "ftruncate64");
    return is_descriptor_below(descriptor) && fails() ? -1 : next(descriptor, length);
}

int fsync(int descriptor) {
    NEXT(int (*)(int), "fsync");
    return is_descriptor_below(descriptor) && fails() ? -1 : next(descriptor);
}

int rename(const char *from, const char *to) {
    NEXT(int (*)(const char *, const char *), "rename");
    return is_below(to) && fails() ? -1 : next(from, to);
}

int symlink(const char *target, const char *path) {
    NEXT(int (*)(const char *, const char *), "symlink");
    return is_below(path) && fails() ? -1 : next(target, path);
}

int mkdir(const char *path, mode_t mode) {
    NEXT(int (*)(const char *, mode_t), "mkdir");
    return is_below(path) && fails() ? -1 : next(path, mode);
}

static int creates(const char *path, int flags) {
    return (flags & (O_CREAT | O_WRONLY | O_RDWR)) && is_below(path) && fails();
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

/* Open MPI's MPI_Recv; its handles are pointers. */
int MPI_Recv(void *bytes, int count, void *type, int source, int tag, void *communicator, void *status) {
    NEXT(int (*)(void *, int, void *, int, int, void *, void *), "MPI_Recv");
    int result = next(bytes, count, type, source, tag, communicator, status);
    const char *rank = getenv("OMPI_COMM_WORLD_RANK");
    if (rank && getenv("FAULT_RECV") && atoi(rank) == number("FAULT_RECV", -1)) *(double *)bytes = 1e12;
    return result;
}
