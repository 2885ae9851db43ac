#include "base/error.h"

#include <string.h>

const char *ph_err_code(int err) {
  switch (err) {
#define X(name, number, code, text)                                                                \
  case PH_E##name:                                                                                 \
    return code;
    PH_ERROR_MAP(X)
#undef X
  default:
    return "unknown";
  }
}

const char *ph_err_text(int err) {
  switch (err) {
#define X(name, number, code, text)                                                                \
  case PH_E##name:                                                                                 \
    return text;
    PH_ERROR_MAP(X)
#undef X
  default:
    return "unknown error";
  }
}

int ph_err_number(const char *code) {
#define X(name, number, text_code, text)                                                           \
  if (strcmp(code, text_code) == 0) return PH_E##name;
  PH_ERROR_MAP(X)
#undef X
  return PH_EINVAL;
}
