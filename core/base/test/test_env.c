#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/test/testenv.h"

static void errors_have_code_text_and_number(void **state) {
  (void)state;
#define X(name, number, code, text)                                                                \
  assert_int_equal(PH_E##name, -number);                                                           \
  assert_string_equal(ph_err_code(PH_E##name), code);                                              \
  assert_string_equal(ph_err_text(PH_E##name), text);                                              \
  assert_int_equal(ph_err_number(code), PH_E##name);
  PH_ERROR_MAP(X)
#undef X
  assert_string_equal(ph_err_code(-9999), "unknown");
  assert_string_equal(ph_err_text(-9999), "unknown error");
  assert_int_equal(ph_err_number("no such code"), PH_EINVAL);
}

static void due_times_saturate(void **state) {
  (void)state;
  te t;
  te_init(&t, 1);
  assert_int_equal(ph_due(&t.env, 5), t.now + PH_MS(5));
  assert_int_equal(ph_due(&t.env, UINT64_MAX), PH_NEVER);
  assert_int_equal(ph_due(&t.env, UINT64_MAX / 1000000 + 1), PH_NEVER);
  TE_END(&t);
}

static void memory_comes_from_the_environment(void **state) {
  (void)state;
  te t;
  te_init(&t, 1);
  char *s = ph_strndup(&t.env, "abcdef", 3);
  assert_string_equal(s, "abc");
  uint8_t *z = ph_zalloc(&t.env, 100);
  for (int i = 0; i < 100; i++) assert_int_equal(z[i], 0);
  assert_int_equal(atomic_load(&t.live), 2);
  z = ph_realloc(&t.env, z, 200);
  ph_free(&t.env, z);
  ph_free(&t.env, s);
  ph_free(&t.env, NULL);
  void *empty = ph_alloc(&t.env, 0);
  assert_non_null(empty);
  ph_free(&t.env, empty);
  te_fail_in(&t, 1);
  assert_null(ph_zalloc(&t.env, 1));
  te_fail_in(&t, 1);
  assert_null(ph_strndup(&t.env, "abc", 3));
  assert_null(ph_strndup(&t.env, "abc", SIZE_MAX));
  TE_END(&t);
}

static void log_lines_are_single_and_bounded(void **state) {
  (void)state;
  te t;
  te_init(&t, 1);
  ph_logf(&t.env, PH_LOG_WARN, "node %s\nforged \x1b[0m", "a");
  assert_int_equal(t.logs[PH_LOG_WARN], 1);
  assert_string_equal(t.last_log, "node a forged  [0m");
  char big[3000];
  memset(big, 'x', sizeof big - 1);
  big[sizeof big - 1] = '\0';
  ph_logf(&t.env, PH_LOG_INFO, "%s", big);
  assert_int_equal(strlen(t.last_log), 1023);
  assert_string_equal(t.last_log + 1020, "...");
  t.env.log_level = PH_LOG_ERROR;
  ph_logf(&t.env, PH_LOG_WARN, "no");
  assert_int_equal(t.logs[PH_LOG_WARN], 1);
  TE_END(&t);
}

static void real_environment_works(void **state) {
  (void)state;
  unsetenv("PHUB_LOG");
  ph_env e;
  ph_env_real(&e);
  assert_int_equal(e.log_level, PH_LOG_WARN);
  setenv("PHUB_LOG", "debug", 1);
  ph_env_real(&e);
  assert_int_equal(e.log_level, PH_LOG_DEBUG);
  uint64_t a = ph_now(&e), b = ph_now(&e);
  assert_true(b >= a && a > 0);
  assert_true(ph_wall(&e) > UINT64_C(1600000000000));
  assert_true(ph_random64(&e) != ph_random64(&e));
  uint8_t bytes[4096] = {0};
  e.random(e.ctx, bytes, sizeof bytes);
  int zeros = 0;
  for (size_t i = 0; i < sizeof bytes; i++) zeros += bytes[i] == 0;
  assert_true(zeros < 200);
  void *p = ph_zalloc(&e, 100);
  assert_non_null(p);
  p = ph_realloc(&e, p, 10000);
  assert_non_null(p);
  ph_free(&e, p);
}

static int lines_with(const char *text, const char *word) {
  int n = 0;
  for (const char *s = text; (s = strstr(s, word)); s++) n++;
  return n;
}

static void logs_repeated(ph_env *e) {
  for (int i = 0; i < 5; i++) ph_logf(e, PH_LOG_WARN, "the same line");
  ph_logf(e, PH_LOG_ERROR, "the same line"); /* another level is another line */
  ph_logf(e, PH_LOG_WARN, "another line");
  ph_logf(e, PH_LOG_INFO, "too detailed");
  /* more different lines than are remembered: the count must come out before it is forgotten */
  for (int i = 0; i < 10; i++) ph_logf(e, PH_LOG_WARN, "filler %d", i);
}

/* stderr goes to a file meanwhile */
static void real_log_limits_repeated_lines(void **state) {
  (void)state;
  unsetenv("PHUB_LOG");
  ph_env e;
  ph_env_real(&e);
  FILE *f = tmpfile();
  assert_non_null(f);
  int saved = dup(STDERR_FILENO);
  dup2(fileno(f), STDERR_FILENO);
  logs_repeated(&e);
  dup2(saved, STDERR_FILENO);
  close(saved);
  char text[8192];
  rewind(f);
  text[fread(text, 1, sizeof text - 1, f)] = '\0';
  fclose(f);
  assert_int_equal(lines_with(text, "\n"), 14);
  assert_int_equal(lines_with(text, "phub warn: the same line\n"), 1);
  assert_int_equal(lines_with(text, "phub warn: the same line (repeated 4 times)\n"), 1);
  assert_int_equal(lines_with(text, "phub error: the same line\n"), 1);
  assert_int_equal(lines_with(text, "another line"), 1);
  assert_int_equal(lines_with(text, "too detailed"), 0);
}

static void a_closed_stderr_does_not_kill(void **state) {
  (void)state;
  pid_t pid = fork();
  assert_true(pid >= 0);
  if (pid == 0) {
    int fds[2];
    if (pipe(fds) != 0) _exit(2);
    signal(SIGPIPE, SIG_DFL);
    close(fds[0]);
    dup2(fds[1], STDERR_FILENO);
    ph_env e;
    ph_env_real(&e);
    e.log(e.ctx, PH_LOG_WARN, "nobody reads this");
    _exit(0);
  }
  int status;
  assert_int_equal(waitpid(pid, &status, 0), pid);
  assert_true(WIFEXITED(status));
  assert_int_equal(WEXITSTATUS(status), 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(errors_have_code_text_and_number),
      cmocka_unit_test(due_times_saturate),
      cmocka_unit_test(memory_comes_from_the_environment),
      cmocka_unit_test(log_lines_are_single_and_bounded),
      cmocka_unit_test(real_environment_works),
      cmocka_unit_test(real_log_limits_repeated_lines),
      cmocka_unit_test(a_closed_stderr_does_not_kill),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
