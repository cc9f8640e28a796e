/* A C program that works with files by POSIX's calls: `worker DIRECTORY` works beneath that directory and leaves nothing
 * behind. Says what went wrong and exits with 1, or says `ok`. */

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define CHECK(what)                                                                                                    \
    do {                                                                                                               \
        if (!(what)) {                                                                                                 \
            fprintf(stderr, "worker: line %d: %s: %s\n", __LINE__, #what, strerror(errno));                            \
            exit(1);                                                                                                   \
        }                                                                                                              \
    } while (0)
#define FAILS(call, with) CHECK((errno = 0, (call) == -1) && errno == (with))

static char path[512];
static const char *base;

/* A name beneath our directory; good until the next call. */
static const char *at(const char *name) {
    snprintf(path, sizeof path, "%s/worker/%s", base, name);
    return path;
}

int main(int argc, char **argv) {
    char text[64], again[512];
    struct stat one, two;
    CHECK(argc == 2);
    base = argv[1];
    CHECK(mkdir(at(""), 0755) == 0);

    /* stdio */
    FILE *file = fopen(at("text"), "w+");
    CHECK(file);
    for (int n = 0; n < 1000; n++) CHECK(fprintf(file, "line %d\n", n) > 0);
    CHECK(fseek(file, 0, SEEK_SET) == 0 && fgets(text, sizeof text, file) && strcmp(text, "line 0\n") == 0);
    CHECK(fseek(file, -9, SEEK_END) == 0 && fgets(text, sizeof text, file) && strcmp(text, "line 999\n") == 0);
    CHECK(ftell(file) == 8890 && fclose(file) == 0);
    CHECK((file = fopen(at("text"), "a")) && fputs("more", file) >= 0 && fclose(file) == 0);
    CHECK(stat(at("text"), &one) == 0 && one.st_size == 8894 && S_ISREG(one.st_mode) && one.st_nlink == 1);

    /* descriptors */
    int fd = open(at("text"), O_RDWR);
    CHECK(fd >= 0 && fstat(fd, &two) == 0 && one.st_ino == two.st_ino && one.st_dev == two.st_dev);
    CHECK(pwrite(fd, "PATCH", 5, 100) == 5 && lseek(fd, 0, SEEK_CUR) == 0);
    CHECK(pread(fd, text, 5, 100) == 5 && memcmp(text, "PATCH", 5) == 0);
    struct iovec parts[2] = {{text, 2}, {text + 2, 3}};
    CHECK(lseek(fd, 100, SEEK_SET) == 100 && readv(fd, parts, 2) > 0);
    CHECK(ftruncate(fd, 10) == 0 && lseek(fd, 0, SEEK_END) == 10);
    CHECK(fsync(fd) == 0 && fdatasync(fd) == 0 && posix_fadvise(fd, 0, 0, POSIX_FADV_SEQUENTIAL) == 0);
    struct timespec times[2] = {{1, 2}, {3, 4000}};
    CHECK(futimens(fd, times) == 0 && fstat(fd, &one) == 0);
    CHECK(one.st_atim.tv_sec == 1 && one.st_mtim.tv_sec == 3 && one.st_mtim.tv_nsec == 4000);
    CHECK(close(fd) == 0);
    CHECK((fd = open(at("text"), O_WRONLY | O_APPEND)) >= 0 && write(fd, "end", 3) == 3 && close(fd) == 0);
    CHECK(stat(at("text"), &one) == 0 && one.st_size == 13);
    FAILS(open(at("text"), O_CREAT | O_EXCL | O_WRONLY, 0644), EEXIST);
    FAILS(open(at("text"), O_RDONLY | O_DIRECTORY), ENOTDIR);
    FAILS(open(at(""), O_WRONLY), EISDIR);
    FAILS(open(at("none/text"), O_CREAT | O_WRONLY, 0644), ENOENT);
    CHECK((fd = open(at("text"), O_RDONLY)) >= 0);
    FAILS(write(fd, "x", 1), EBADF);
    CHECK(close(fd) == 0);

    /* names */
    strcpy(again, at("text"));
    CHECK(link(again, at("linked")) == 0 && stat(at("linked"), &two) == 0);
    CHECK(two.st_nlink == 2 && one.st_ino == two.st_ino);
    FAILS(link(again, at("linked")), EEXIST);
    CHECK(symlink("text", at("soft")) == 0 && lstat(at("soft"), &two) == 0 && S_ISLNK(two.st_mode) && two.st_size == 4);
    CHECK(readlink(at("soft"), text, sizeof text) == 4 && memcmp(text, "text", 4) == 0);
    CHECK(stat(at("soft"), &two) == 0 && one.st_ino == two.st_ino);
    FAILS(open(at("soft"), O_RDONLY | O_NOFOLLOW), ELOOP);
    FAILS(symlink("text", at("soft")), EEXIST);
    CHECK(rename(again, at("renamed")) == 0 && access(at("renamed"), R_OK) == 0);
    FAILS(access(again, F_OK), ENOENT);
    FAILS(rename(again, at("x")), ENOENT);
    FAILS(unlink(at("none")), ENOENT);
    FAILS(rmdir(at("renamed")), ENOTDIR);

    /* directories, also by descriptor */
    CHECK(mkdir(at("dir"), 0755) == 0);
    FAILS(mkdir(at("dir"), 0755), EEXIST);
    int dir = open(at("dir"), O_RDONLY | O_DIRECTORY);
    CHECK(dir >= 0 && mkdirat(dir, "sub", 0755) == 0);
    for (int n = 0; n < 300; n++) {
        snprintf(text, sizeof text, "entry-%d", n);
        CHECK((fd = openat(dir, text, O_CREAT | O_WRONLY, 0644)) >= 0 && close(fd) == 0);
    }
    DIR *listing = opendir(at("dir"));
    CHECK(listing);
    int entries = 0, dots = 0;
    struct dirent *entry;
    while ((entry = readdir(listing))) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) {
            dots++;
            continue;
        }
        CHECK(entry->d_type == (strcmp(entry->d_name, "sub") == 0 ? DT_DIR : DT_REG));
        CHECK(fstatat(dir, entry->d_name, &one, AT_SYMLINK_NOFOLLOW) == 0 && one.st_ino == entry->d_ino);
        entries++;
    }
    CHECK(entries == 301 && (dots == 2 || dots == 0));
    rewinddir(listing);
    CHECK(readdir(listing) && closedir(listing) == 0);
    FAILS(rmdir(at("dir")), ENOTEMPTY);
    FAILS(unlink(at("dir/sub")), EISDIR);
    CHECK(renameat(dir, "entry-0", dir, "sub/moved") == 0 && unlinkat(dir, "sub/moved", 0) == 0);
    CHECK(unlinkat(dir, "sub", AT_REMOVEDIR) == 0);
    for (int n = 1; n < 300; n++) {
        snprintf(text, sizeof text, "entry-%d", n);
        CHECK(unlinkat(dir, text, 0) == 0);
    }
    CHECK(close(dir) == 0 && rmdir(at("dir")) == 0);

    CHECK(unlink(at("renamed")) == 0 && unlink(at("linked")) == 0 && unlink(at("soft")) == 0);
    CHECK(rmdir(at("")) == 0);
    puts("ok");
    return 0;
}
