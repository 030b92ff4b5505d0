// One load on files, by system calls or, built with -DWITH_NFS, by libnfs. Prints one JSON object.
//
//   fileload CASE AT --threads N --bytes N --block N --count N --seconds S [--direct] [--warm] [--sync end|each] [--name NAME]
//
// AT is a directory, or nfs://HOST/EXPORT?version=3&... for libnfs. Content-cases work on one file of --bytes per thread, name-cases on --count
// files in a directory per thread. Content is random, made before the clock starts: nothing here reduces. Threads start together and
// share nothing; libnfs gets one connection a thread. --warm reads the file once, by the same descriptor, before the clock starts. The CPU time of this process is told, so that a reader can see what the client costs.
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#ifdef WITH_NFS
#include <nfsc/libnfs.h>
#endif

enum { THREADS_MAX = 64, ALIGNMENT = 4096, WARM_BYTES = 1 << 20 };

static struct {
    const char *what, *at, *name, *sync;
    int threads, direct, warm;
    uint64_t bytes, block, count;
    double seconds;
} options = {.name = "load", .sync = "", .threads = 1, .bytes = 64 << 20, .block = 4096, .count = 1000, .seconds = 2};

struct thread {
    pthread_t id;
    int number;
    uint64_t operations, bytes, state;
    double began, ended;
    char *content;
#ifdef WITH_NFS
    struct nfs_context *nfs;
#endif
};

static pthread_barrier_t together;

static void fail(const char *what, const char *path, const char *why) {
    fprintf(stderr, "fileload: %s %s: %s\n", what, path, why);
    exit(1);
}

static double now(void) {
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return at.tv_sec + at.tv_nsec / 1e9;
}

static uint64_t next(uint64_t *state) {
    *state ^= *state << 13, *state ^= *state >> 7, *state ^= *state << 17;
    return *state;
}

// One call per operation of either backend. They end the process when it fails, but for `away`, which takes a missing name as it is.
#ifdef WITH_NFS
typedef struct nfsfh *file;
static void must(struct thread *t, int result, const char *what, const char *path) {
    if (result < 0) fail(what, path, nfs_get_error(t->nfs));
}
static void connect_thread(struct thread *t) {
    t->nfs = nfs_init_context();
    struct nfs_url *url = nfs_parse_url_dir(t->nfs, options.at);
    if (!url) fail("parse", options.at, nfs_get_error(t->nfs));
    nfs_set_uid(t->nfs, 0), nfs_set_gid(t->nfs, 0), nfs_set_dircache(t->nfs, 0);
    must(t, nfs_mount(t->nfs, url->server, url->path), "mount", options.at);
    nfs_destroy_url(url);
}
static file make_file(struct thread *t, const char *path) {
    file made;
    must(t, nfs_creat(t->nfs, path, 0644, &made), "create", path);
    return made;
}
static file open_file(struct thread *t, const char *path, int flags) {
    file opened;
    must(t, nfs_open(t->nfs, path, flags & O_ACCMODE, &opened), "open", path);
    return opened;
}
static void write_at(struct thread *t, file f, const char *from, uint64_t length, uint64_t at) {
    if (nfs_pwrite(t->nfs, f, at, length, (void *)from) != (int)length) fail("write", options.name, nfs_get_error(t->nfs));
}
static void read_at(struct thread *t, file f, char *to, uint64_t length, uint64_t at) {
    if (nfs_pread(t->nfs, f, at, length, to) != (int)length) fail("read", options.name, nfs_get_error(t->nfs));
}
static void sync_file(struct thread *t, file f) { must(t, nfs_fsync(t->nfs, f), "sync", options.name); }
static void close_file(struct thread *t, file f) { must(t, nfs_close(t->nfs, f), "close", options.name); }
static void look(struct thread *t, const char *path) {
    struct nfs_stat_64 found;
    must(t, nfs_lstat64(t->nfs, path, &found), "stat", path);
}
static void away(struct thread *t, const char *path) {
    int result = nfs_unlink(t->nfs, path);
    if (result != -ENOENT) must(t, result, "unlink", path);
}
static void move(struct thread *t, const char *from, const char *to) { must(t, nfs_rename(t->nfs, from, to), "rename", from); }
static void directory(struct thread *t, const char *path) {
    int result = nfs_mkdir(t->nfs, path);
    if (result != -EEXIST) must(t, result, "mkdir", path);
}
static uint64_t list(struct thread *t, const char *path) {
    struct nfsdir *opened;
    uint64_t entries = 0;
    must(t, nfs_opendir(t->nfs, path, &opened), "list", path);
    while (nfs_readdir(t->nfs, opened)) entries++;
    nfs_closedir(t->nfs, opened);
    return entries;
}
static const char *root(void) { return ""; }
#else
typedef int file;
static void must(struct thread *t, int result, const char *what, const char *path) {
    (void)t;
    if (result < 0) fail(what, path, strerror(errno));
}
static void connect_thread(struct thread *t) { (void)t; }
static file opened(struct thread *t, const char *path, int flags) {
    file f = open(path, flags | (options.direct ? O_DIRECT : 0), 0644);
    must(t, f, "open", path);
    return f;
}
static file make_file(struct thread *t, const char *path) { return opened(t, path, O_CREAT | O_EXCL | O_WRONLY); }
static file open_file(struct thread *t, const char *path, int flags) { return opened(t, path, flags); }
static void write_at(struct thread *t, file f, const char *from, uint64_t length, uint64_t at) {
    (void)t;
    if (pwrite(f, from, length, at) != (ssize_t)length) fail("write", options.name, strerror(errno));
}
static void read_at(struct thread *t, file f, char *to, uint64_t length, uint64_t at) {
    (void)t;
    if (pread(f, to, length, at) != (ssize_t)length) fail("read", options.name, strerror(errno));
}
static void sync_file(struct thread *t, file f) { must(t, fsync(f), "sync", options.name); }
static void close_file(struct thread *t, file f) { must(t, close(f), "close", options.name); }
static void look(struct thread *t, const char *path) {
    struct stat found;
    must(t, lstat(path, &found), "stat", path);
}
static void away(struct thread *t, const char *path) {
    int result = unlink(path);
    if (result < 0 && errno != ENOENT) must(t, result, "unlink", path);
}
static void move(struct thread *t, const char *from, const char *to) { must(t, rename(from, to), "rename", from); }
static void directory(struct thread *t, const char *path) {
    int result = mkdir(path, 0755);
    if (result < 0 && errno != EEXIST) must(t, result, "mkdir", path);
}
// As `ls -l`: every entry with its attributes, which libnfs asks for by itself.
static uint64_t list(struct thread *t, const char *path) {
    DIR *opened = opendir(path);
    if (!opened) fail("list", path, strerror(errno));
    uint64_t entries = 0;
    for (struct dirent *entry; (entry = readdir(opened)); entries++) {
        struct stat found;
        must(t, fstatat(dirfd(opened), entry->d_name, &found, AT_SYMLINK_NOFOLLOW), "stat", entry->d_name);
    }
    closedir(opened);
    return entries;
}
static const char *root(void) { return options.at; }
#endif

static void data_path(struct thread *t, char *path) { sprintf(path, "%s/%s-%d", root(), options.name, t->number); }
static void names_path(struct thread *t, char *path) { sprintf(path, "%s/%s-names-%d", root(), options.name, t->number); }

static void begin(struct thread *t) {
    pthread_barrier_wait(&together);
    t->began = now();
}

static void done(struct thread *t, uint64_t bytes) { t->operations++, t->bytes += bytes; }

static void warm(struct thread *t, file f) {
    for (uint64_t at = 0; options.warm && at < options.bytes; at += WARM_BYTES) read_at(t, f, t->content, WARM_BYTES, at);
}

static void sequential(struct thread *t, int writing) {
    char path[4096];
    data_path(t, path);
    if (writing) away(t, path);
    file f;
    if (!writing) f = open_file(t, path, O_RDONLY), warm(t, f);
    begin(t);
    if (writing) f = make_file(t, path);
    for (uint64_t at = 0; at < options.bytes; at += options.block, done(t, options.block))
        if (writing) write_at(t, f, t->content + at, options.block, at);
        else read_at(t, f, t->content, options.block, at);
    if (writing && *options.sync) sync_file(t, f);
    close_file(t, f);
}

static void random_blocks(struct thread *t, int writing) {
    char path[4096];
    data_path(t, path);
    file f = open_file(t, path, writing ? O_RDWR : O_RDONLY);
    uint64_t blocks = options.bytes / options.block;
    warm(t, f);
    begin(t);
    for (double until = t->began + options.seconds; now() < until; done(t, options.block)) {
        uint64_t at = next(&t->state) % blocks * options.block;
        if (writing) write_at(t, f, t->content + at, options.block, at);
        else read_at(t, f, t->content, options.block, at);
        if (writing && !strcmp(options.sync, "each")) sync_file(t, f);
    }
    if (writing && !strcmp(options.sync, "end")) sync_file(t, f);
    close_file(t, f);
}

static void create(struct thread *t, const char *path) {
    file f = make_file(t, path);
    if (options.bytes) write_at(t, f, t->content, options.bytes, 0);
    if (*options.sync) sync_file(t, f);
    close_file(t, f);
}

static void read_small(struct thread *t, const char *path) {
    file f = open_file(t, path, O_RDONLY);
    read_at(t, f, t->content, options.bytes, 0);
    close_file(t, f);
}

static void rename_one(struct thread *t, const char *path) {
    char to[4200];
    sprintf(to, "%s-renamed", path);
    move(t, path, to);
    move(t, to, path);
    done(t, 0);
}

static void names(struct thread *t, void (*each)(struct thread *, const char *)) {
    char path[4096];
    names_path(t, path);
    size_t length = strlen(path);
    directory(t, path);
    begin(t);
    for (uint64_t number = 0; number < options.count; number++, done(t, options.bytes)) {
        sprintf(path + length, "/file-%06lu", (unsigned long)number);
        each(t, path);
    }
}

static void listing(struct thread *t) {
    char path[4096];
    names_path(t, path);
    begin(t);
    t->operations = list(t, path);
}

static void *run(void *argument) {
    struct thread *t = argument;
    const char *what = options.what;
    connect_thread(t);
    if (!strcmp(what, "write")) sequential(t, 1);
    else if (!strcmp(what, "read")) sequential(t, 0);
    else if (!strcmp(what, "random-read")) random_blocks(t, 0);
    else if (!strcmp(what, "random-write")) random_blocks(t, 1);
    else if (!strcmp(what, "create")) names(t, create);
    else if (!strcmp(what, "read-small")) names(t, read_small);
    else if (!strcmp(what, "stat")) names(t, look);
    else if (!strcmp(what, "rename")) names(t, rename_one);
    else if (!strcmp(what, "unlink")) names(t, away);
    else if (!strcmp(what, "list")) listing(t);
    else fail("case", what, "unknown");
    t->ended = now();
    return NULL;
}

static void parse(int argc, char **argv) {
    if (argc < 3) fail("usage:", "CASE AT", "see the head of fileload.c");
    options.what = argv[1], options.at = argv[2];
    for (int i = 3; i < argc; i++) {
        if (!strcmp(argv[i], "--direct") || !strcmp(argv[i], "--warm")) {
            options.direct |= argv[i][2] == 'd', options.warm |= argv[i][2] == 'w';
            continue;
        }
        const char *flag = argv[i], *value = ++i < argc ? argv[i] : NULL;
        if (!value) fail("option", flag, "lacks a value");
        if (!strcmp(flag, "--threads")) options.threads = atoi(value);
        else if (!strcmp(flag, "--bytes")) options.bytes = strtoull(value, NULL, 10);
        else if (!strcmp(flag, "--block")) options.block = strtoull(value, NULL, 10);
        else if (!strcmp(flag, "--count")) options.count = strtoull(value, NULL, 10);
        else if (!strcmp(flag, "--seconds")) options.seconds = atof(value);
        else if (!strcmp(flag, "--sync")) options.sync = value;
        else if (!strcmp(flag, "--name")) options.name = value;
        else fail("option", flag, "unknown");
    }
    if (options.threads < 1 || options.threads > THREADS_MAX || !options.block) fail("option", "--threads or --block", "out of range");
}

static double cpu_seconds(void) {
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    return used.ru_utime.tv_sec + used.ru_stime.tv_sec + (used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;
}

int main(int argc, char **argv) {
    static struct thread threads[THREADS_MAX];
    parse(argc, argv);
    pthread_barrier_init(&together, NULL, options.threads);
    uint64_t room = options.bytes > options.block ? options.bytes : options.block;
    for (int i = 0; i < options.threads; i++) {
        struct thread *t = &threads[i];
        t->number = i, t->state = (uint64_t)time(NULL) << 20 ^ (uint64_t)getpid() << 6 ^ (uint64_t)(i + 1);
        if (posix_memalign((void **)&t->content, ALIGNMENT, room + ALIGNMENT)) fail("memory", "", "none");
        for (uint64_t at = 0; at < room; at += 8) *(uint64_t *)(t->content + at) = next(&t->state);
    }
    double cpu = cpu_seconds();
    for (int i = 0; i < options.threads; i++)
        if (pthread_create(&threads[i].id, NULL, run, &threads[i])) fail("thread", "", "none");
    struct thread sum = {.began = 1e18};
    for (int i = 0; i < options.threads; i++) {
        pthread_join(threads[i].id, NULL);
        sum.operations += threads[i].operations, sum.bytes += threads[i].bytes;
        if (threads[i].began < sum.began) sum.began = threads[i].began;
        if (threads[i].ended > sum.ended) sum.ended = threads[i].ended;
    }
    printf("{\"operations\": %lu, \"bytes\": %lu, \"seconds\": %.6f, \"client_cpu_seconds\": %.6f}\n", (unsigned long)sum.operations,
           (unsigned long)sum.bytes, sum.ended - sum.began, cpu_seconds() - cpu);
    return 0;
}
