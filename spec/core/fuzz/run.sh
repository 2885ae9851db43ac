#!/bin/bash
# run.sh SECONDS NAME...: each fuzzer for so long; ends with `N passed, N failed`.
set -u
cd "$(dirname "$0")/../../.." || exit 1
seconds=$1
shift
passed=0
failed=0
export ASAN_OPTIONS=detect_leaks=1:quarantine_size_mb=16 UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1
mkdir -p build/fuzz/found build/fuzz/log
for name in "$@"; do
  mkdir -p "build/fuzz/learnt/$name"
  log=build/fuzz/log/$name
  if "build/fuzz/fuzz_$name" -max_total_time="$seconds" -entropic=0 -timeout=20 -rss_limit_mb=1024 -print_final_stats=1 \
    -artifact_prefix="build/fuzz/found/$name-" "build/fuzz/learnt/$name" "build/fuzz/corpus/$name" \
    >"$log" 2>&1; then
    passed=$((passed + 1))
    result=ok
  else
    failed=$((failed + 1))
    result=FAILED
    tail -n 60 "$log"
  fi
  echo "$result  $name: $(sed -n 's/^stat::number_of_executed_units: *//p' "$log") inputs," \
    "$(sed -n 's/.*cov: \([0-9]*\).*/\1/p' "$log" | tail -n 1) edges; $log"
done
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
