# The commands of a developer. Tools are pinned here and run from the module
# proxy, so that go.mod lists what the program needs and nothing else.
GO        ?= go
# Not LINT, which make itself defines.
LINTER    ?= $(GO) run github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
BENCHSTAT ?= $(GO) run golang.org/x/perf/cmd/benchstat@v0.0.0-20260908200009-22c9c6c9d4da
# A count: with a duration a fuzz test that found nothing may fail at its end, "context
# deadline exceeded" (golang.org/issue/75804, until Go 1.27).
FUZZTIME  ?= 200000x
BENCH     ?= .
COUNT     ?= 1
SCALE     ?= 1000000

.DEFAULT_GOAL := help
.PHONY: help build install demo test race integration fuzz lint fmt bench bench-scale check needs

help: ## list these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## build bin/roam
	$(GO) build -o bin/roam ./cmd/roam

install: ## install roam into the directory that go env GOBIN or GOPATH names
	$(GO) install ./cmd/roam

demo: build needs ## show the product at work: two devices on this computer, each step checked
	$(GO) run ./examples/demo -roam bin/roam

test: needs ## all tests, with real mounts; the long ones of integration shortened
	$(GO) test -short $$($(GO) list ./... | grep -v /integration)
	$(GO) test -short -count=1 ./integration/... # the program that they run is not among what go test looks at

race: needs ## the tests of the packages with the race detector
	$(GO) test -race $$($(GO) list ./... | grep -v /integration)

integration: needs ## the tests with several real devices, at full length
	$(GO) test -count=1 -timeout=30m ./integration/...

fuzz: ## each fuzz test, with FUZZTIME inputs (200000x)
	@grep -rlE '^func Fuzz' --include='*_test.go' . | sort | while read -r file; do \
		for name in $$(sed -nE 's/^func (Fuzz[A-Za-z0-9_]*).*/\1/p' "$$file"); do \
			echo "== $$(dirname "$$file") $$name"; \
			$(GO) test -run='^$$' -fuzz="^$$name\$$" -fuzztime=$(FUZZTIME) "$$(dirname "$$file")" || exit 1; \
		done || exit 1; \
	done

lint: ## check style and the direction of imports
	$(LINTER) run ./...

fmt: ## format the code
	$(LINTER) fmt ./...

bench: build needs ## benchmarks (BENCH=pattern COUNT=10 choose and repeat them), and roam against the disk
	$(GO) test -run='^$$' -bench='$(BENCH)' -benchmem -count=$(COUNT) ./...
	$(GO) run ./integration/bench -roam bin/roam
	@echo 'To compare two runs: $(BENCHSTAT) OLD NEW'

bench-scale: build needs ## roam with SCALE files in a tenth as many folders (1000000; takes a quarter of an hour)
	$(GO) run ./integration/bench -roam bin/roam -scale $(SCALE)

check: lint race integration ## what must pass before a change lands

# needs names what the tests with a real mount lack. It installs nothing: the
# tests that cannot run say so and are skipped, or fail with ROAM_REQUIRE_MOUNT=1.
needs:
	@missing=; \
	if [ "$$(id -u)" != 0 ] && ! command -v fusermount3 >/dev/null; then missing="$$missing fuse3"; fi; \
	for tool in git python3 rsync sqlite3; do command -v $$tool >/dev/null || missing="$$missing $$tool"; done; \
	command -v getfattr >/dev/null || missing="$$missing attr"; \
	command -v ip >/dev/null || missing="$$missing iproute2"; \
	if [ -n "$$missing" ]; then \
		echo "missing:$$missing. Install with:"; \
		if command -v apt-get >/dev/null; then echo "  sudo apt-get install -y$$missing"; \
		elif command -v dnf >/dev/null; then echo "  sudo dnf install -y$$missing"; \
		elif command -v pacman >/dev/null; then echo "  sudo pacman -S$$missing"; fi; \
	fi; \
	if [ ! -c /dev/fuse ]; then echo "missing: /dev/fuse. Load the module with: sudo modprobe fuse"; fi
