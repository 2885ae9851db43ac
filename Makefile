# phub: one shared object (build/<flavour>/phub/core.so) from core/ and lua/src/, and Lua files.
#
#   make                 the shared object          make test    C tests and specs
#   make demo [DIR=...]  the demo cluster           make lint    formatting and layer rules
#   make env             LUA_PATH and LUA_CPATH     make install PREFIX= DESTDIR=
#   make ctest specs     the two halves of test     make format  clang-format, in place
#   make check           test under ASan and UBSan, TSan, valgrind (check-asan, -tsan, -valgrind)
#   make bench [N=1000]  measures; doc/bench.md
#   make fuzz SECONDS=n  libFuzzer on what comes from peers (fuzz-smoke, fuzz-corpus)
#
# What is missing on the machine is named, and installed with apt-get by root (.ci/deps).
#
# Flavours: SAN=address (ASan and UBSan) or SAN=thread, CC=gcc or clang; each builds in a
# directory of its own under build/. VALGRIND=1 runs the tests of a flavour without SAN under memcheck.

ifeq ($(origin CC),default)
CC := gcc
endif
SAN ?=
VALGRIND ?=
PREFIX ?= /usr/local
DESTDIR ?=
LUA ?= /usr/bin/lua5.4
LUA_VERSION := 5.4
WERROR ?= -Werror
PKG_CONFIG ?= pkg-config

# ---- flavour -------------------------------------------------------------------------------

COMPILER := $(if $(findstring clang,$(notdir $(firstword $(CC)))),clang,gcc)
SAN_NAME_ := release
SAN_NAME_address := asan
SAN_NAME_thread := tsan
ifndef SAN_NAME_$(SAN)
$(error SAN is '$(SAN)': use SAN=address or SAN=thread)
endif
FLAVOUR := $(SAN_NAME_$(SAN))$(if $(filter clang,$(COMPILER)),-clang)
B := build/$(FLAVOUR)

SAN_FLAGS_ := -O2
SAN_FLAGS_address := -O1 -fno-omit-frame-pointer -fsanitize=address,undefined
SAN_FLAGS_thread := -O1 -fno-omit-frame-pointer -fsanitize=thread
SAN_LINK_ := -O2
SAN_LINK_address := -fsanitize=address,undefined
SAN_LINK_thread := -fsanitize=thread
SHARED_SAN_gcc :=
SHARED_SAN_clang := $(if $(SAN),-shared-libsan)

# ---- sources -------------------------------------------------------------------------------

# Top to bottom: each folder may use those before it, and its tests link with no other.
LAYERS := base wire net cluster proc hub
find_c = $(sort $(shell find $(1) -name '*.c' 2>/dev/null))

CORE_ALL := $(call find_c,core)
CORE_SRC := $(foreach f,$(CORE_ALL),$(if $(findstring /test/,$(f)),,$(f)))
CORE_TEST := $(foreach f,$(CORE_ALL),$(if $(findstring /test/,$(f)),$(f)))
BIND_ALL := $(call find_c,lua/src)
BIND_SRC := $(filter-out lua/src/test/%,$(BIND_ALL))
BIND_TEST := $(filter lua/src/test/%,$(BIND_ALL))
LUA_FILES := $(sort $(shell find lua/phub -name '*.lua' 2>/dev/null))
HEADERS := $(sort $(shell find core lua/src -name '*.h' 2>/dev/null))

# In test/, test_* and bench_* are programs, anything else is help shared by the tests of its folder
# and below.
named = $(foreach f,$(2),$(if $(filter $(1),$(notdir $(f))),$(f)))
is_help = $(filter-out $(call named,test_% bench_%,$(1)),$(1))
TEST_SRC := $(call named,test_%,$(CORE_TEST) $(BIND_TEST))
BENCH_SRC := $(call named,bench_%,$(CORE_TEST) $(BIND_TEST))
TEST ?= $(TEST_SRC)
LAYER ?=
TESTS := $(if $(LAYER),$(filter core/$(LAYER)/%,$(TEST)),$(TEST))

obj = $(patsubst %.c,$(B)/obj/%.o,$(1))
layer_of = $(word 2,$(subst /, ,$(1)))
layer_obj = $(call obj,$(filter core/$(1)/%,$(CORE_SRC)))
help_obj = $(call obj,$(call is_help,$(filter core/$(1)/%,$(CORE_TEST))))
TOP_OBJ := $(call obj,$(filter-out core/base/% core/wire/% core/net/% core/cluster/% core/proc/% \
             core/hub/%,$(CORE_SRC)))
BIND_OBJ := $(call obj,$(BIND_SRC))
CORE_OBJ := $(call obj,$(CORE_SRC))
ALL_OBJ := $(CORE_OBJ) $(BIND_OBJ) $(call obj,$(CORE_TEST) $(BIND_TEST))

# ---- flags ---------------------------------------------------------------------------------

# Asked of pkg-config only when a recipe needs it: `make clean` works on a bare machine.
MSGPACK_PC = $(shell $(PKG_CONFIG) --exists msgpack && echo msgpack || echo msgpack-c)
CORE_PC = libuv $(MSGPACK_PC) libssl libcrypto libxxhash
once = $(eval $(1) := $(2))$($(1))
CORE_CFLAGS = $(call once,CORE_CFLAGS,$(shell $(PKG_CONFIG) --cflags $(CORE_PC)))
CORE_LIBS = $(call once,CORE_LIBS,$(shell $(PKG_CONFIG) --libs $(CORE_PC)))
CMOCKA_LIBS = $(call once,CMOCKA_LIBS,$(shell $(PKG_CONFIG) --libs cmocka))
LUA_LIBS = $(call once,LUA_LIBS,$(shell $(PKG_CONFIG) --libs lua5.4))
ifdef LUA_INCDIR
LUA_CFLAGS := -I$(LUA_INCDIR)
else
LUA_CFLAGS = $(call once,LUA_CFLAGS,$(shell $(PKG_CONFIG) --cflags lua5.4))
endif

CFLAGS ?= -g
# gcc warns of what it does not know once sanitizers have changed the code.
WARN := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes \
  $(if $(SAN),$(if $(filter gcc,$(COMPILER)),-Wno-format-truncation -Wno-maybe-uninitialized)) $(WERROR)
BASE_CFLAGS := -std=c11 -D_GNU_SOURCE -fPIC -fvisibility=hidden -pthread $(WARN) \
  $(SAN_FLAGS_$(SAN)) -Icore
LINK := $(SAN_LINK_$(SAN)) -pthread $(LDFLAGS)

# ---- targets -------------------------------------------------------------------------------

.DEFAULT_GOAL := all
.DELETE_ON_ERROR:
.SECONDARY:
MAKEFLAGS += --no-builtin-rules
SHELL := /bin/bash
# V=1 shows whole commands.
say = @$(if $(V),,echo '  $(1)  $(2)';)$(if $(V),set -x;)

.PHONY: all objects demo test check check-asan check-tsan check-valgrind ctest bench specs lint format install env clean deps FORCE

all: $(B)/phub/core.so

# ---- what must be installed: one look a run, before anything is compiled --------------------

GOALS := $(or $(MAKECMDGOALS),all)
DEPS := $(sort $(if $(filter-out clean env format lint deps,$(GOALS)),build) \
  $(if $(filter demo test ctest check% specs bench,$(GOALS)),run) $(if $(filter bench,$(GOALS)),bench) \
  $(if $(filter test ctest check% bench specs objects fuzz%,$(GOALS)),test) \
  $(if $(filter fuzz%,$(GOALS)),fuzz) \
  $(if $(VALGRIND)$(filter check check-valgrind,$(GOALS)),valgrind) $(if $(filter lint,$(GOALS)),build run lint) \
  $(if $(filter format,$(GOALS)),lint))
deps:
	@PHUB_DEPS='$(PHUB_DEPS)' CC='$(CC)' LUA='$(LUA)' LUA_INCDIR='$(LUA_INCDIR)' PKG_CONFIG='$(PKG_CONFIG)' .ci/deps $(DEPS)

# ---- compiling -----------------------------------------------------------------------------

# Compiles everything, tests too, and links nothing.
objects: $(ALL_OBJ)

# A change of compiler or flags rebuilds.
$(B)/flags: FORCE | deps
	@mkdir -p $(@D)
	@echo '$(CC) $(CFLAGS) $(BASE_CFLAGS) $(LINK)' | cmp -s - $@ || \
	  echo '$(CC) $(CFLAGS) $(BASE_CFLAGS) $(LINK)' > $@

$(B)/obj/core/%.o: core/%.c $(B)/flags
	@mkdir -p $(@D)
	$(call say,CC,$<)$(CC) $(BASE_CFLAGS) $(CORE_CFLAGS) $(CFLAGS) -MMD -MP -c -o $@ $<

$(B)/obj/lua/src/%.o: lua/src/%.c $(B)/flags
	@mkdir -p $(@D)
	$(call say,CC,$<)$(CC) $(BASE_CFLAGS) -Ilua/src $(CORE_CFLAGS) $(LUA_CFLAGS) $(CFLAGS) -MMD -MP -c -o $@ $<

$(B)/phub/core.so: $(CORE_OBJ) $(BIND_OBJ)
	@mkdir -p $(@D)
	@test -n '$(BIND_OBJ)' || { echo 'make: no C file in lua/src: nothing to link' >&2; exit 1; }
	$(call say,LD,$@)$(CC) -shared -Wl,-z,nodelete $(SHARED_SAN_$(COMPILER)) $(LINK) -o $@.new $^ $(CORE_LIBS)
	@mv $@.new $@  # at once: programs that run now keep the old one

# One archive a layer, made afresh so that a deleted file leaves it.
define layer_rules
$(B)/lib/$(1).a: $(call layer_obj,$(1)) $(call help_obj,$(1))
	@mkdir -p $$(@D); rm -f $$@
	@$(AR) rcs $$@ $$^
endef
$(foreach l,$(LAYERS),$(eval $(call layer_rules,$(l))))
# core/phub.c, with help of core/test/
$(B)/lib/top.a: $(TOP_OBJ) $(call obj,$(call is_help,$(filter core/test/%,$(CORE_TEST))))
	@mkdir -p $(@D); rm -f $@
	@$(AR) rcs $@ $^
$(B)/lib/lua.a: $(BIND_OBJ) $(call obj,$(call is_help,$(BIND_TEST)))
	@mkdir -p $(@D); rm -f $@
	@$(AR) rcs $@ $^

# The archives a test of layer $(1) may use, lowest first.
upto = $(if $(filter $(1),$(LAYERS)),$(call upto_,$(1),$(LAYERS)),$(LAYERS))
upto_ = $(firstword $(2)) $(if $(filter $(1),$(firstword $(2))),,$(call upto_,$(1),$(wordlist 2,99,$(2))))
reverse = $(if $(1),$(call reverse,$(wordlist 2,99,$(1))) $(firstword $(1)))
archives = $(patsubst %,$(B)/lib/%.a,$(call reverse,$(call upto,$(1))))

test_bin = $(patsubst %.c,$(B)/test/%,$(1))
above = $(if $(filter lua/%,$(1)),$(B)/lib/lua.a) $(if $(filter lua/% core/test/%,$(1)),$(B)/lib/top.a)
define test_rule
$(call test_bin,$(1)): $(call obj,$(1)) $(call above,$(1)) $(call archives,$(call layer_of,$(1)))
	@mkdir -p $$(@D)
	$$(call say,LD,$$@)$$(CC) $$(LINK) -o $$@ $$(filter %.o,$$^) -Wl,--start-group $$(filter %.a,$$^) -Wl,--end-group \
	  $$(CORE_LIBS) $(if $(filter lua/%,$(1)),$$(LUA_LIBS)) $$(CMOCKA_LIBS) -lm
endef
$(foreach t,$(TEST_SRC) $(BENCH_SRC),$(eval $(call test_rule,$(t))))

# see there
SHIM := $(if $(filter thread,$(SAN)),$(B)/longjmp.so)
$(B)/longjmp.so: .ci/longjmp.c $(B)/flags
	@$(CC) -O2 -U_FORTIFY_SOURCE -fPIC -shared -o $@ $<

# ---- running -------------------------------------------------------------------------------

TREE_LUA = $(CURDIR)/lua/?.lua;$(CURDIR)/lua/?/init.lua
TREE_C = $(CURDIR)/$(B)/?.so
IN_TREE = LUA_PATH='$(TREE_LUA);;' LUA_CPATH='$(TREE_C);;'
RUN_TESTS = $(IN_TREE) PRELOAD='$(addprefix $(CURDIR)/,$(SHIM))' VALGRIND='$(VALGRIND)' CC='$(CC)' SAN='$(SAN)' LUA='$(LUA)' $(LUA) .ci/test.lua $(B)/log
SPECS := $(sort $(shell find spec -name '*_spec.lua' 2>/dev/null))
# It measures how soon one process gives way to another, and ASan makes each longjmp of Lua's a dozen system
# calls. core/net/test/test_preempt.c runs under it all the same.
ifeq ($(SAN),address)
SPECS := $(filter-out spec/preempt_spec.lua,$(SPECS))
endif
SPEC ?= $(SPECS)

# RUN: some C tests and specs only
RUN ?= $(TEST_SRC) $(SPECS)
test: all $(SHIM) $(call test_bin,$(filter %.c,$(RUN)))
	@$(RUN_TESTS) $(call test_bin,$(filter %.c,$(RUN))) $(filter %.lua,$(RUN))

# The tests again under what finds misuse of memory and races. TSan: what has threads. Valgrind: what
# runs on one node, so that no heartbeat is late; install and README compile and measure nothing.
CLUSTER_SPECS := $(if $(SPECS),$(shell grep -l 'spec\.support\.cluster' $(SPECS)))
TSAN_TESTS := $(filter core/base/test/test_handoff.c core/base/test/test_env.c core/net/% core/test/% \
  lua/src/test/%,$(TEST_SRC))
TSAN_SPECS := $(sort $(CLUSTER_SPECS) $(foreach s,future gen_server preempt process run, \
  $(wildcard spec/$(s)_spec.lua)))
VALGRIND_SPECS := $(filter-out $(CLUSTER_SPECS) spec/cluster/% spec/install_spec.lua spec/readme_spec.lua,$(SPECS))
check: check-asan check-tsan check-valgrind
check-asan:
	@$(MAKE) --no-print-directory SAN=address test
check-tsan:
	@$(MAKE) --no-print-directory SAN=thread test RUN='$(TSAN_TESTS) $(TSAN_SPECS)'
check-valgrind:
	@$(MAKE) --no-print-directory VALGRIND=1 test RUN='$(TEST_SRC) $(VALGRIND_SPECS)'

# C tests: all, or LAYER=base, or TEST=core/base/test/test_buf.c
ctest: $(SHIM) $(call test_bin,$(TESTS))
	@$(RUN_TESTS) $(call test_bin,$(TESTS))

# N: the largest number of children; ONLY: some of the sections, by name (spec/bench/main.lua)
N ?= 100000
ONLY ?=
bench: all $(call test_bin,$(BENCH_SRC))
	@$(IN_TREE) LUA='$(LUA)' N='$(N)' ONLY='$(ONLY)' BENCH_BIN='$(B)/test' $(LUA) spec/bench/main.lua

# Specs: all, or SPEC=spec/hub_spec.lua
specs: all $(SHIM)
	@$(RUN_TESTS) $(SPEC)

# DIR: the folder whose files are counted
demo: all
	@$(IN_TREE) LUA='$(LUA)' $(LUA) examples/demo.lua $(if $(DIR),'$(subst ','\'',$(DIR))')

# ---- checking ------------------------------------------------------------------------------

C_FILES := $(CORE_ALL) $(BIND_ALL) $(HEADERS)
LUA_CHECKED := $(sort $(wildcard lua spec examples .ci/*.lua rockspec/*.rockspec .luacheckrc))

lint: all
	@echo '  clang-format'; clang-format --dry-run -Werror $(C_FILES)
	@echo '  cppcheck'; cppcheck --quiet --error-exitcode=1 --std=c11 \
	  --enable=warning,performance,portability --inline-suppr --suppress=missingIncludeSystem \
	  --suppress=legacyUninitvar \
	  -D_GNU_SOURCE -Icore -Ilua/src -j 2 $(CORE_SRC) $(BIND_SRC)
	@echo '  luacheck'; luacheck --quiet --no-color $(LUA_CHECKED)
	@echo '  layers'; $(LUA) .ci/layers.lua $(B)/obj $(B)/phub/core.so -- $(C_FILES)

format: deps
	@clang-format -i $(C_FILES)

# ---- fuzzing -------------------------------------------------------------------------------

# Four libFuzzer programs (spec/core/fuzz), under ASan and UBSan, each for SECONDS, from a corpus that
# is recorded from the traffic of a cluster in memory. What one finds is in build/fuzz/found, and what
# it learns in build/fuzz/learnt; FUZZ=node: one of them only. fuzz-smoke: in CI.
FUZZ ?= frame value handshake node
SECONDS ?= 60
FUZZ_FLAVOUR := B=build/fuzz CC=clang SAN=address CFLAGS='-g -fsanitize=fuzzer-no-link'
FUZZ_SRC := $(call find_c,spec/core/fuzz)
FUZZ_HELP := $(filter-out spec/core/fuzz/fuzz_% spec/core/fuzz/record.c,$(FUZZ_SRC))
C_FILES += $(FUZZ_SRC) $(wildcard spec/core/fuzz/*.h)
ALL_OBJ += $(call obj,$(FUZZ_SRC))
.PHONY: fuzz fuzz-smoke fuzz-corpus fuzz-programs

$(B)/obj/spec/core/%.o: spec/core/%.c $(B)/flags
	@mkdir -p $(@D)
	$(call say,CC,$<)$(CC) $(BASE_CFLAGS) $(CORE_CFLAGS) $(CFLAGS) -MMD -MP -c -o $@ $<

FUZZ_PARTS := $(call obj,$(FUZZ_HELP)) $(call archives,hub)
$(B)/fuzz_%: $(B)/obj/spec/core/fuzz/fuzz_%.o $(FUZZ_PARTS)
	$(call say,LD,$@)$(CC) $(LINK) -fsanitize=fuzzer -o $@ $(filter %.o,$^) -Wl,--start-group $(filter %.a,$^) -Wl,--end-group \
	  $(CORE_LIBS) $(CMOCKA_LIBS) -lm
$(B)/record: $(B)/obj/spec/core/fuzz/record.o $(FUZZ_PARTS)
	$(call say,LD,$@)$(CC) $(LINK) -o $@ $(filter %.o,$^) -Wl,--start-group $(filter %.a,$^) -Wl,--end-group \
	  $(CORE_LIBS) $(CMOCKA_LIBS) -lm

fuzz-programs: $(B)/record $(foreach f,$(FUZZ),$(B)/fuzz_$(f))
fuzz-corpus:
	@$(MAKE) --no-print-directory $(FUZZ_FLAVOUR) fuzz-programs
	@rm -rf build/fuzz/corpus; mkdir -p build/fuzz/corpus
	@build/fuzz/record build/fuzz/corpus
fuzz: fuzz-corpus
	@spec/core/fuzz/run.sh $(SECONDS) $(FUZZ)
fuzz-smoke:
	@$(MAKE) --no-print-directory fuzz SECONDS=10

# ---- installing ----------------------------------------------------------------------------

LUADIR ?= $(PREFIX)/share/lua/$(LUA_VERSION)
LIBDIR ?= $(PREFIX)/lib/lua/$(LUA_VERSION)

install: all
	@for f in $(LUA_FILES:lua/%=%); do \
	  install -D -m 644 "lua/$$f" '$(DESTDIR)$(LUADIR)'/"$$f" || exit 1; done
	@install -D -m 755 $(B)/phub/core.so '$(DESTDIR)$(LIBDIR)/phub/core.so'
	@echo 'installed in $(DESTDIR)$(LUADIR)/phub and $(DESTDIR)$(LIBDIR)/phub'

# For eval in a shell: what is set already stays, the defaults too (a path that ends with ;;).
path_with = $(subst ','\'',$(if $(findstring $(1),$(2)),$(2),$(1);$(patsubst %;;,%;,$(2:=;));))
env:
	@echo 'export LUA_PATH='\''$(call path_with,$(TREE_LUA),$(LUA_PATH))'\'
	@echo 'export LUA_CPATH='\''$(call path_with,$(TREE_C),$(LUA_CPATH))'\'

clean:
	rm -rf build

-include $(ALL_OBJ:.o=.d)
