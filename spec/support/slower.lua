-- How much slower than usual specs run, by what runs them: under a sanitizer or valgrind.
return tonumber(os.getenv "SPEC_SLOWER") or 1
