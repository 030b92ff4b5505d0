/* Preloaded into qemu-storage-daemon, whose FUSE exports have two faults before QEMU 10.1 that a rig cannot live with:
 *
 * All requests of an export are received into one buffer, and the next is polled for while the data of the last one is still written:
 * parallel direct writes, and the parts of one larger than a request, overwrite each other. Here each is processed in a buffer of its own.
 *
 * A request that was polled for may be gone when it is read, because who asked was killed; the read then waits, and with it all exports.
 * Here it does not wait. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

struct fuse_session;
struct fuse_buf { /* of libfuse 3 */
    size_t size;
    int flags;
    void *mem;
    int fd;
    off_t pos;
};

static void *next(const char *name) {
    void *found = dlsym(RTLD_NEXT, name);
    if (found == NULL) {
        dprintf(STDERR_FILENO, "fuse_export: no %s in libfuse\n", name);
        abort();
    }
    return found;
}

void fuse_session_process_buf(struct fuse_session *session, const struct fuse_buf *buffer) {
    typedef void (*process)(struct fuse_session *, const struct fuse_buf *);
    process real = (process)next("fuse_session_process_buf");
    struct fuse_buf own = *buffer;
    if (buffer->flags != 0 || (own.mem = malloc(buffer->size)) == NULL) {
        dprintf(STDERR_FILENO, "fuse_export: a request cannot be copied; a recording would be worth nothing\n");
        abort();
    }
    memcpy(own.mem, buffer->mem, buffer->size);
    real(session, &own);
    free(own.mem);
}

int fuse_session_mount(struct fuse_session *session, const char *mountpoint) {
    typedef int (*mount)(struct fuse_session *, const char *);
    typedef int (*descriptor)(struct fuse_session *);
    int result = ((mount)next("fuse_session_mount"))(session, mountpoint);
    if (result == 0) {
        int fd = ((descriptor)next("fuse_session_fd"))(session);
        if (fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK) != 0) {
            dprintf(STDERR_FILENO, "fuse_export: an export's requests cannot be read without waiting\n");
            abort();
        }
    }
    return result;
}
