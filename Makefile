# Syntropy: `make` builds bin/syntropy, `make test` runs everything that CI runs.

GO          ?= go
VERSION     ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
# Tests under -race need cgo; without a C compiler they run without it.
RACE        = $(shell command -v gcc >/dev/null 2>&1 || command -v cc >/dev/null 2>&1 && echo -race)

.PHONY: all build test tools format vet staticcheck unit models bench-module clients-module redis-suite fuzz sim sim-interval model-purge chaos bench bench-endtoend bench-large clean

all: build

build:
	$(GO) build -trimpath -ldflags "-X main.version=$(VERSION)" -o bin/syntropy ./cmd/syntropy

# test is what the README names and CI calls: about six minutes on two cores.
test: tools format vet staticcheck unit models bench-module clients-module

# tools installs what the tests use beside Go, where it can, and says what is
# skipped where it cannot.
tools:
	@./scripts/test-tools

format:
	@out=$$(git ls-files '*.go' | xargs gofmt -l); if [ -n "$$out" ]; then echo "not gofmt'ed:"; echo "$$out"; exit 1; fi

vet:
	$(GO) vet ./...

staticcheck:
	$(GO) run $(STATICCHECK) ./...

unit:
	$(if $(RACE),CGO_ENABLED=1) $(GO) test $(RACE) -timeout 14m ./...

# models runs what is too slow for the race detector, which has seen a part of it:
# among others 10,000 random sessions, 5,000 crashes and 600 bit flips on a disk, and
# the search of the purge.
models:
	$(GO) test -timeout 10m ./antientropy ./storage/pebblestore ./internal/purgemodel

# bench-module tests the module of the benchmarks: every peer against the truth.
bench-module:
	cd bench && $(GO) vet ./... && $(GO) test -timeout 5m ./...

# clients-module tests a node with real clients, and with Redis' own test suite if
# scripts/redis-suite has fetched it: a minute.
clients-module:
	cd clients && $(GO) vet ./... && $(GO) test -timeout 5m ./...

# redis-suite runs Redis' own test suite alone, and shows what was left out and why.
redis-suite:
	./scripts/redis-suite
	cd clients && $(GO) test -timeout 5m -count 1 -run TestRedisSuite -v ./...

# fuzz runs each fuzz target for a while; the corpora that it finds stay in the
# build cache, what fails is written to testdata, beside seeds that are kept.
FUZZTIME ?= 30s
fuzz:
	@set -e; for pkg in $$($(GO) list ./...); do \
		for target in $$($(GO) test -list '^Fuzz' $$pkg | grep '^Fuzz' || true); do \
			echo "== $$pkg $$target"; \
			$(GO) test -run '^$$' -fuzz "^$$target$$" -fuzztime $(FUZZTIME) $$pkg; \
		done; \
	done

# sim runs the simulator over many fresh seeds.
SEEDS ?= 5000
sim:
	$(GO) test ./internal/sim -run TestSeeds -timeout 2h -sim.seeds $(SEEDS)

# model-purge searches the rules of the purge for longer than the tests do: each class
# of failures down to all that can be reached or to STATES states, and each pair of
# them. With the default it takes a few hours of one core and at most 2 GB.
STATES ?= 1000000
RAISES ?= 1
model-purge:
	GOMAXPROCS=2 GOMEMLIMIT=4GiB $(GO) test ./internal/purgemodel -run 'TestClasses|TestWrites|TestPairs' -v -timeout 24h \
		-purge.deep -purge.raises $(RAISES) -purge.limit $(STATES) -purge.closure 200

# sim-interval measures again what the interval of repair costs and buys, and
# writes the table into the page: some minutes on two cores.
sim-interval:
	$(GO) run ./internal/sim/interval -doc docs/repair-interval.md

# chaos kills, stops and freezes real processes for longer than the tests do; give
# SEED to repeat a run.
CHAOSTIME ?= 60s
SEED      ?= 0
chaos:
	$(GO) test ./internal/e2e -run TestChaos -v -timeout 1h -chaos.time $(CHAOSTIME) -chaos.seed $(SEED)

# bench-reconcile measures what it costs to find out where replicas differ, beside
# other ways, and writes the figures into the page. What was measured before is
# kept, unless BENCH_FLAGS has -again; -group core is Syntropy and the baseline.
BENCH_KEYS  ?= 1e3,1e4,1e5,1e6,1e7
BENCH_FLAGS ?=
bench-reconcile:
	cd bench/cmd/sweep && $(GO) run . -n $(BENCH_KEYS) $(BENCH_FLAGS) -check -render

bench-reconcile-render:
	cd bench/cmd/sweep && $(GO) run . -check -render

# bench-billion compares replicas of up to 1e9 keys: half a gigabyte, some minutes.
bench-billion:
	cd bench/cmd/billion && $(GO) run . -out ../../results/billion.jsonl

# bench-storage measures what the store costs beside Pebble alone, and writes the
# figures into the page. Give STORAGE_ROWS= to write what was measured before.
STORAGE_ROWS ?= 1e6,1e7
bench-storage:
	cd bench/cmd/storage && $(GO) run . -rows "$(STORAGE_ROWS)"

bench:
	$(GO) test -run '^$$' -bench . -benchmem ./...

# bench-endtoend measures a repair of ten million rows between two processes, and
# writes the figures into the page: 25 minutes on two idle cores, 4 GB of disk.
bench-endtoend:
	cd bench/cmd && $(GO) run ./endtoend -doc ../../docs/endtoend.md

# bench-large measures replicas of a hundred million rows, and writes the figures
# into the page: six minutes on two idle cores, 20 GB of disk.
bench-large:
	cd bench/cmd && $(GO) run ./large -doc ../../docs/large.md

clean:
	rm -rf bin
