/* Keeps a shadow of every file below UNSYNCED_ROOT as a disk would hold it after a power cut.
 *
 * Preloaded into a process, it notes which bytes are written and copies them to the same path below
 * UNSYNCED_SHADOW only when the file is synced. Kill the process, take the shadow in place of the
 * folder: whatever was not synced is lost. Names (create, rename, unlink) count as durable at once.
 * Memory maps and asynchronous I/O pass it by, so MariaDB runs with innodb_use_native_aio=0.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define FILES_MAX 4096
#define RANGES_MAX 512
#define PIECE (1 << 16)

struct range { off_t from, to; };
struct dirty { dev_t dev; ino_t ino; int used, whole, count; struct range ranges[RANGES_MAX]; };

static struct dirty *files;
static char root[PATH_MAX], shadow[PATH_MAX];
static size_t root_length;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static ssize_t (*real_pwrite)(int, const void *, size_t, off_t);
static ssize_t (*real_write)(int, const void *, size_t);
static ssize_t (*real_writev)(int, const struct iovec *, int);
static ssize_t (*real_pwritev)(int, const struct iovec *, int, off_t);
static int (*real_fsync)(int), (*real_fdatasync)(int), (*real_ftruncate)(int, off_t);
static int (*real_rename)(const char *, const char *), (*real_unlink)(const char *);

__attribute__((constructor)) static void begin(void) {
    const char *from = getenv("UNSYNCED_ROOT"), *to = getenv("UNSYNCED_SHADOW");
    real_pwrite = dlsym(RTLD_NEXT, "pwrite64");
    real_write = dlsym(RTLD_NEXT, "write");
    real_writev = dlsym(RTLD_NEXT, "writev");
    real_pwritev = dlsym(RTLD_NEXT, "pwritev64");
    real_fsync = dlsym(RTLD_NEXT, "fsync");
    real_fdatasync = dlsym(RTLD_NEXT, "fdatasync");
    real_ftruncate = dlsym(RTLD_NEXT, "ftruncate64");
    real_rename = dlsym(RTLD_NEXT, "rename");
    real_unlink = dlsym(RTLD_NEXT, "unlink");
    if (from && to) {
        snprintf(root, sizeof root, "%s", from);
        snprintf(shadow, sizeof shadow, "%s", to);
        root_length = strlen(root);
        files = calloc(FILES_MAX, sizeof *files);
    }
}

/* The shadow's path of a path below the root; 0 if it is elsewhere. */
static int shadow_of(const char *path, char *out) {
    char whole[PATH_MAX], folder[PATH_MAX];
    if (!files) return 0;
    if (path[0] != '/') {
        if (!getcwd(folder, sizeof folder)) return 0;
        if (snprintf(whole, sizeof whole, "%s/%s", folder, path) >= (int)sizeof whole) return 0;
        path = whole;
    }
    if (strncmp(path, root, root_length) || path[root_length] != '/') return 0;
    return snprintf(out, PATH_MAX, "%s%s", shadow, path + root_length) < PATH_MAX;
}

static int path_of(int fd, char *out) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, out, PATH_MAX - 1);
    if (length < 0) return 0;
    out[length] = 0;
    return 1;
}

static struct dirty *dirty_of(int fd) {
    struct stat is;
    if (!files || fstat(fd, &is) || !S_ISREG(is.st_mode)) return 0;
    size_t place = (size_t)(is.st_ino * 2654435761u) % FILES_MAX;
    for (size_t i = 0; i < FILES_MAX; i++) {
        struct dirty *each = &files[(place + i) % FILES_MAX];
        if (each->used && each->dev == is.st_dev && each->ino == is.st_ino) return each;
        if (each->used) continue;
        char path[PATH_MAX], other[PATH_MAX];
        if (!path_of(fd, path) || !shadow_of(path, other)) return 0;
        each->used = 1; each->dev = is.st_dev; each->ino = is.st_ino;
        each->whole = 1; /* what was there before this process wrote is taken along once */
        each->count = 0;
        return each;
    }
    return 0;
}

static void note(int fd, off_t from, ssize_t length) {
    if (!files || length <= 0) return;
    int kept = errno;
    pthread_mutex_lock(&lock);
    struct dirty *file = dirty_of(fd);
    if (file && !file->whole) {
        if (file->count == RANGES_MAX) file->whole = 1;
        else file->ranges[file->count++] = (struct range){from, from + length};
    }
    pthread_mutex_unlock(&lock);
    errno = kept;
}

static void make_folders(char *path) {
    for (char *at = strchr(path + 1, '/'); at; at = strchr(at + 1, '/')) {
        *at = 0;
        mkdir(path, 0700);
        *at = '/';
    }
}

static void copy(int from, int to, off_t begin, off_t end) {
    char piece[PIECE];
    while (begin < end) {
        size_t want = end - begin < PIECE ? (size_t)(end - begin) : PIECE;
        ssize_t got = pread(from, piece, want, begin);
        if (got <= 0 || real_pwrite(to, piece, got, begin) != got) return;
        begin += got;
    }
}

static void synced(int fd) {
    char path[PATH_MAX], other[PATH_MAX];
    struct stat is;
    if (!files) return;
    int kept = errno;
    pthread_mutex_lock(&lock);
    struct dirty *file = dirty_of(fd);
    if (file && path_of(fd, path) && shadow_of(path, other) && !fstat(fd, &is)) {
        make_folders(other);
        int to = open(other, O_WRONLY | O_CREAT, 0600), from = open(path, O_RDONLY);
        if (to >= 0 && from >= 0) {
            if (file->whole) copy(from, to, 0, is.st_size);
            for (int i = 0; i < file->count && !file->whole; i++)
                copy(from, to, file->ranges[i].from, file->ranges[i].to);
            real_ftruncate(to, is.st_size);
            file->whole = 0; file->count = 0;
        }
        if (to >= 0) close(to);
        if (from >= 0) close(from);
    }
    pthread_mutex_unlock(&lock);
    errno = kept;
}

ssize_t pwrite64(int fd, const void *data, size_t size, off_t at) {
    ssize_t done = real_pwrite(fd, data, size, at);
    note(fd, at, done);
    return done;
}
ssize_t pwrite(int fd, const void *data, size_t size, off_t at) {
    return pwrite64(fd, data, size, at);
}
ssize_t write(int fd, const void *data, size_t size) {
    ssize_t done = real_write(fd, data, size);
    if (files && done > 0) note(fd, lseek(fd, 0, SEEK_CUR) - done, done);
    return done;
}
ssize_t writev(int fd, const struct iovec *data, int count) {
    ssize_t done = real_writev(fd, data, count);
    if (files && done > 0) note(fd, lseek(fd, 0, SEEK_CUR) - done, done);
    return done;
}
ssize_t pwritev64(int fd, const struct iovec *data, int count, off_t at) {
    ssize_t done = real_pwritev(fd, data, count, at);
    note(fd, at, done);
    return done;
}
ssize_t pwritev(int fd, const struct iovec *data, int count, off_t at) {
    return pwritev64(fd, data, count, at);
}
int ftruncate64(int fd, off_t size) {
    int done = real_ftruncate(fd, size);
    if (!done) note(fd, 0, 1);
    return done;
}
int ftruncate(int fd, off_t size) { return ftruncate64(fd, size); }
int fsync(int fd) { int done = real_fsync(fd); if (!done) synced(fd); return done; }
int fdatasync(int fd) { int done = real_fdatasync(fd); if (!done) synced(fd); return done; }

int rename(const char *from, const char *to) {
    char before[PATH_MAX], after[PATH_MAX];
    int done = real_rename(from, to);
    if (!done && shadow_of(from, before) && shadow_of(to, after)) {
        int kept = errno;
        make_folders(after);
        real_rename(before, after);
        errno = kept;
    }
    return done;
}
int unlink(const char *path) {
    char other[PATH_MAX];
    int done = real_unlink(path);
    if (!done && shadow_of(path, other)) {
        int kept = errno;
        real_unlink(other);
        errno = kept;
    }
    return done;
}
