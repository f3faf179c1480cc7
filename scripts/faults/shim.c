/* Faults of files and clocks, for LD_PRELOAD: counts what a program does to files below a folder and,
 * at a given one, kills it or lets the call fail. program.py sets the variables:
 *
 *   FAULT_DIR      the folder; other files are left alone
 *   FAULT_COUNTER  a file of 8 bytes: the operations so far, of this process and its children
 *   FAULT_OPS      which operations count: letters of "owsrut", see `enum`; all by default
 *   FAULT_AT       the operation, from 1, at which it happens; without it they are counted only
 *   FAULT_DO       kill:  the process group is gone before the operation
 *                  torn:  the same, in the middle of a write
 *                  power: the same, and what no fsync has brought to the disk is lost
 *                  28, 5: the operation fails with that errno (ENOSPC, EIO)
 *   FAULT_STICKS   1: every operation from there on fails, too
 *   FAULT_LOCKS    locks are refused with that errno, in all folders
 *   FAULT_CLOCK    "SECONDS CALL": the wall clock jumps by so much at that reading of it
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { OPEN = 'o', WRITE = 'w', SYNC = 's', RENAME = 'r', UNLINK = 'u', TRUNCATE = 't' };

/* The function of the C library that `name` hides. */
#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static const char *folder, *ops, *what;
static long at, sticks, locks, clock_step, clock_at;
static _Atomic long *counter, unshared;
static atomic_long clock_calls;

/* Files with bytes that are not synced, for `power`. */
enum { MOST = 4096 };
static struct { ino_t inode; off_t synced; } dirty[MOST];
static atomic_int dirty_count;

static void begin(void) __attribute__((constructor));
static void begin(void) {
    const char *text;
    counter = &unshared;
    folder = getenv("FAULT_DIR");
    ops = getenv("FAULT_OPS");
    what = (text = getenv("FAULT_DO")) ? text : "";
    at = (text = getenv("FAULT_AT")) ? atol(text) : 0;
    sticks = (text = getenv("FAULT_STICKS")) ? atol(text) : 0;
    locks = (text = getenv("FAULT_LOCKS")) ? atol(text) : 0;
    if ((text = getenv("FAULT_CLOCK"))) sscanf(text, "%ld %ld", &clock_step, &clock_at);
    if ((text = getenv("FAULT_COUNTER"))) {
        int fd = NEXT(open)(text, O_RDWR | O_CLOEXEC);
        void *map = fd < 0 ? MAP_FAILED : mmap(0, 8, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (map != MAP_FAILED) counter = map;
        if (fd >= 0) close(fd);
    }
}

static int below(const char *path) {
    size_t n = folder ? strlen(folder) : 0;
    return n && path && !strncmp(path, folder, n) && (path[n] == '/' || !path[n]);
}

/* Whether `fd` is a file of the folder. */
static int below_fd(int fd) {
    char link[32], path[PATH_MAX];
    if (!folder) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    if (n < 0) return 0;
    path[n] = 0;
    return below(path);
}

static int below_at(int dir, const char *path) {
    return path && path[0] == '/' ? below(path) : dir != AT_FDCWD && below_fd(dir);
}

static int forget_unsynced(const char *path, const struct stat *info, int type, struct FTW *walk) {
    (void)walk;
    if (type == FTW_F)
        for (int i = 0; i < dirty_count && i < MOST; i++)
            if (dirty[i].inode == info->st_ino && dirty[i].synced < info->st_size)
                if (NEXT(truncate)(path, dirty[i].synced)) break;
    return 0;
}

static void die(void) {
    if (!strcmp(what, "power")) nftw(folder, forget_unsynced, 16, FTW_PHYS);
    for (;;) kill(0, SIGKILL);
}

/* Counts an operation: 0 where it is to be done as ever, -1 with errno where it fails. `torn` is set
 * where half of it is to be done before the end. */
static int step(char op, int *torn) {
    if (torn) *torn = 0;
    if (ops && !strchr(ops, op)) return 0;
    long now = 1 + atomic_fetch_add(counter, 1);
    if (!at || now < at || (now > at && !sticks)) return 0;
    if (atoi(what)) {
        errno = atoi(what);
        return -1;
    }
    if (torn && !strcmp(what, "torn")) *torn = 1;
    else die();
    return 0;
}

/* Notes that `fd` has bytes that are not on disk, or that it has none any more. */
static void note(int fd, int synced) {
    struct stat info;
    if (strcmp(what, "power") || fstat(fd, &info) || !S_ISREG(info.st_mode)) return;
    int i = 0;
    while (i < dirty_count && i < MOST && dirty[i].inode != info.st_ino) i++;
    if (i >= MOST || (i == dirty_count && synced)) return;
    if (i == dirty_count) {
        dirty[i].inode = info.st_ino;
        dirty[i].synced = info.st_size;
        dirty_count++;
    }
    if (synced) dirty[i].synced = info.st_size;
}

ssize_t write(int fd, const void *bytes, size_t n) {
    int torn;
    if (!below_fd(fd)) return NEXT(write)(fd, bytes, n);
    if (step(WRITE, &torn)) return -1;
    note(fd, 0);
    ssize_t done = NEXT(write)(fd, bytes, torn ? n / 2 : n);
    if (torn) die();
    return done;
}

ssize_t writev(int fd, const struct iovec *parts, int n) {
    if (!below_fd(fd)) return NEXT(writev)(fd, parts, n);
    if (step(WRITE, 0)) return -1;
    note(fd, 0);
    return NEXT(writev)(fd, parts, n);
}

ssize_t pwrite64(int fd, const void *bytes, size_t n, off64_t place) {
    if (!below_fd(fd)) return NEXT(pwrite64)(fd, bytes, n, place);
    if (step(WRITE, 0)) return -1;
    note(fd, 0);
    return NEXT(pwrite64)(fd, bytes, n, place);
}

/* The functions of one form: a test of the path, the operation, the call. */
#define FORM(type, name, op, parameters, inside, arguments)             \
    type name parameters {                                              \
        if ((inside) && step(op, 0)) return -1;                         \
        return NEXT(name) arguments;                                    \
    }
FORM(int, ftruncate64, TRUNCATE, (int fd, off64_t n), below_fd(fd), (fd, n))
FORM(int, ftruncate, TRUNCATE, (int fd, off_t n), below_fd(fd), (fd, n))
FORM(int, rename, RENAME, (const char *from, const char *to), below(to), (from, to))
FORM(int, renameat, RENAME, (int a, const char *from, int b, const char *to), below_at(b, to), (a, from, b, to))
FORM(int, renameat2, RENAME, (int a, const char *from, int b, const char *to, unsigned flags),
     below_at(b, to), (a, from, b, to, flags))
FORM(int, unlink, UNLINK, (const char *path), below(path), (path))
FORM(int, unlinkat, UNLINK, (int dir, const char *path, int flags), below_at(dir, path), (dir, path, flags))
FORM(int, rmdir, UNLINK, (const char *path), below(path), (path))
FORM(int, mkdir, OPEN, (const char *path, mode_t mode), below(path), (path, mode))

static int sync_by(int fd, int (*next)(int)) {
    if (!below_fd(fd)) return next(fd);
    if (step(SYNC, 0)) return -1;
    int done = next(fd);
    if (!done) note(fd, 1);
    return done;
}
int fsync(int fd) { return sync_by(fd, NEXT(fsync)); }
int fdatasync(int fd) { return sync_by(fd, NEXT(fdatasync)); }

/* Opening counts where it makes or empties a file. */
#define OPENS(name)                                                     \
    int name(const char *path, int flags, ...) {                        \
        va_list more;                                                   \
        va_start(more, flags);                                          \
        int mode = va_arg(more, int);                                   \
        va_end(more);                                                   \
        if (flags & (O_CREAT | O_TRUNC) && below(path) && step(OPEN, 0)) return -1; \
        return NEXT(name)(path, flags, mode);                           \
    }
OPENS(open64)
OPENS(open)

int flock(int fd, int how) {
    if (!locks) return NEXT(flock)(fd, how);
    errno = locks;
    return -1;
}

int clock_gettime(clockid_t clock, struct timespec *time) {
    int done = NEXT(clock_gettime)(clock, time);
    if (!done && clock == CLOCK_REALTIME && clock_step && ++clock_calls >= clock_at) {
        time->tv_sec += clock_step;
    }
    return done;
}
