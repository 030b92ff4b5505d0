/* Preloaded into qemu-storage-daemon: each FUSE request is processed in a buffer of its own.
 *
 * QEMU before 10.1 receives all requests of an export into one buffer, and polls for the next while it still writes the data of the last one:
 * parallel direct writes, and the parts of one larger than a request, overwrite each other. Without this the rig would corrupt what it records. */
#define _GNU_SOURCE
#include <dlfcn.h>
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

void fuse_session_process_buf(struct fuse_session *session, const struct fuse_buf *buffer) {
    typedef void (*process)(struct fuse_session *, const struct fuse_buf *);
    process real = (process)dlsym(RTLD_NEXT, "fuse_session_process_buf");
    struct fuse_buf own = *buffer;
    if (buffer->flags != 0 || (own.mem = malloc(buffer->size)) == NULL) {
        dprintf(STDERR_FILENO, "own_buffer: a FUSE request cannot be copied; a recording would be worth nothing\n");
        abort();
    }
    memcpy(own.mem, buffer->mem, buffer->size);
    real(session, &own);
    free(own.mem);
}
