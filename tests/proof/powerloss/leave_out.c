/* Preloaded into a daemon under judgement: its flushes do nothing once the file named by PROOF_LEAVE_OUT exists. A control; see test_product.py. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <unistd.h>

static int is_left_out(void) {
    const char *path = getenv("PROOF_LEAVE_OUT");
    return path != NULL && access(path, F_OK) == 0;
}

int fdatasync(int fd) {
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
    return is_left_out() ? 0 : real(fd);
}

int fsync(int fd) {
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
    return is_left_out() ? 0 : real(fd);
}
