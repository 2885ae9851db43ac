/* Preloaded under TSan. Debian's Lua leaves by __longjmp_chk, which gcc's runtime does not know: the
 * calls that were left would stay on its stack of calls, and that would grow for ever. */
#include <setjmp.h>

void __longjmp_chk(jmp_buf env, int value) __attribute__((noreturn));

void __longjmp_chk(jmp_buf env, int value) {
  longjmp(env, value);
}
