/* Lua's library with the least around it: `lua SCRIPT [ARGUMENTS]` runs a file, `lua` alone runs lines of standard input
 * as they come. `fs` has what standard Lua lacks: directories. */

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lauxlib.h"
#include "lua.h"
#include "lualib.h"

/* The tag that longjmp throws, which the C library's setjmp wants and does not define. */
__asm__(".globl __c_longjmp\n.tagtype __c_longjmp i32\n__c_longjmp:\n");

/* WASI's C library declares these and has none of them. */
FILE *tmpfile(void) {
    errno = ENOTSUP;
    return NULL;
}

char *tmpnam(char *name) {
    (void)name;
    return NULL;
}

int system(const char *command) {
    (void)command;
    return 0;
}

static int fails(lua_State *L, const char *path) { return luaL_error(L, "%s: %s", path, strerror(errno)); }

/* fs.list(path): the names in a directory. */
static int list(lua_State *L) {
    const char *path = luaL_checkstring(L, 1);
    DIR *directory = opendir(path);
    if (!directory) return fails(L, path);
    lua_newtable(L);
    for (struct dirent *entry; (entry = readdir(directory));) {
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..")) continue;
        lua_pushstring(L, entry->d_name);
        lua_rawseti(L, -2, (lua_Integer)lua_rawlen(L, -2) + 1);
    }
    closedir(directory);
    return 1;
}

/* fs.stat(path): is it a directory, its size, its time of modification. */
static int status(lua_State *L) {
    const char *path = luaL_checkstring(L, 1);
    struct stat info;
    if (lstat(path, &info)) return fails(L, path);
    lua_pushboolean(L, S_ISDIR(info.st_mode));
    lua_pushinteger(L, info.st_size);
    lua_pushinteger(L, info.st_mtim.tv_sec);
    return 3;
}

/* fs.mkdir(path). */
static int make(lua_State *L) {
    const char *path = luaL_checkstring(L, 1);
    return mkdir(path, 0755) ? fails(L, path) : 0;
}

static const luaL_Reg FS[] = {{"list", list}, {"stat", status}, {"mkdir", make}, {NULL, NULL}};

static int report(lua_State *L) {
    fprintf(stderr, "lua: %s\n", lua_tostring(L, -1));
    lua_pop(L, 1);
    return 1;
}

int main(int argc, char **argv) {
    lua_State *L = luaL_newstate();
    luaL_openlibs(L);
    luaL_newlib(L, FS);
    lua_setglobal(L, "fs");
    lua_newtable(L);
    for (int n = 1; n < argc; n++) {
        lua_pushstring(L, argv[n]);
        lua_rawseti(L, -2, n - 1);
    }
    lua_setglobal(L, "arg");
    int failed = 0;
    if (argc > 1) {
        failed = luaL_dofile(L, argv[1]) && report(L);
    } else {
        char line[4096];
        if (isatty(0)) printf("%s\n", LUA_VERSION);
        for (;;) {
            if (isatty(0)) printf("> "), fflush(stdout);
            if (!fgets(line, sizeof line, stdin)) break;
            failed = luaL_dostring(L, line) && report(L);
            fflush(stdout);
        }
    }
    lua_close(L);
    return failed;
}
