# What a newcomer needs: make demo, make test.
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
GOFLAGS_BUILD = -trimpath -buildvcs=false -ldflags "-s -w -X main.version=$(VERSION)"
STATICCHECK = honnef.co/go/tools/cmd/staticcheck@v0.8.2
TARGETS = linux-arm64 linux-armv7 linux-armv6 linux-amd64

.PHONY: build demo test race cross lint bench compare faults-million fuzz profiles soak-demo kill-journal flip-journal full-journal bench-backlog outage-month demo-arm gpio-vm usb-vm clock-vm power-cut write-log-replay flash-vm screenshots clean help

help: ## list the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "%-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## build bin/hubagent
	CGO_ENABLED=0 go build $(GOFLAGS_BUILD) -o bin/hubagent ./agent

demo: build ## run the whole system with simulated devices (flags: make demo ARGS="--for 40s --outage 10s --kill")
	bin/hubagent demo $(ARGS)

test: ## all tests, real parts included
	scripts/test

lint: ## gofmt, go vet, staticcheck
	scripts/lint $(STATICCHECK)

cross: ## static binaries for the four targets, in dist/
	@set -e; for t in $(TARGETS); do \
		arch=$${t#linux-}; arm=; case $$arch in armv*) arm=$${arch#armv}; arch=arm;; esac; \
		echo "dist/hubagent-$$t"; \
		CGO_ENABLED=0 GOOS=linux GOARCH=$$arch GOARM=$$arm go build $(GOFLAGS_BUILD) -o dist/hubagent-$$t ./agent; \
	done

demo-arm: cross ## the demo for 20 s with the arm64 and the armv7 binary under qemu-user
	scripts/demo-arm

gpio-vm: ## the GPIO driver on a real kernel: gpio-sim chips in an arm64 guest under QEMU
	scripts/gpio-vm

soak-demo: build ## demo with outage and kill at random moments, RUNS times (default 20)
	scripts/soak-demo $(or $(RUNS),20)

kill-journal: ## kill -9 the journal in commits, drops, GC, opening and closing, RUNS times (default 200)
	HUB_KILL_RUNS=$(or $(RUNS),200) go test -count=1 -run '^TestKill$$' -v -timeout 1h ./buffer

full-journal: ## the journal on a disk with any number of pages free, RUNS times (default 500); needs root
	HUB_FULL_STEPS=$(or $(RUNS),500) go test -count=1 -run '^TestFullAtEveryStep$$' -v -timeout 2h ./buffer

bench-backlog: ## open after kill -9 and drain a backlog of MB (default 1024), with a cold cache as root; its size at rest
	HUB_BACKLOG_MB=$(or $(MB),1024) go test -run '^$$' -bench '^BenchmarkBacklog' -benchtime 10x -v -timeout 2h ./buffer
	HUB_BACKLOG_MB=$(or $(REST_MB),128) go test -count=1 -run '^TestDiskBytesAtRest$$' -v -timeout 1h ./buffer

flip-journal: ## turn single bits of a journal at FLIPS random places (default 1000), one at a time
	HUB_FLIPS=$$(($(or $(FLIPS),1000) / 2)) go test -count=1 -run TestBitFlips -v -timeout 2h ./buffer

outage-month: ## 30 days (DAYS) without a platform on a journal of 256 MB (QUOTA_MB), minute by minute
	HUB_OUTAGE_DAYS=$(or $(DAYS),30) HUB_QUOTA_MB=$(or $(QUOTA_MB),256) go test -count=1 -run TestQuotaInAnOutage -v -timeout 2h ./agent/record

power-cut: ## cut the power of a guest that writes a journal, RUNS times (default 500); goes on where it was ended
	scripts/journal-vm cut $(or $(RUNS),500) $(or $(LEDGER),dist/power-cut)

write-log-replay: ## record all writes of that guest's disk, and check the journal at POINTS (default 200) between two flushes
	scripts/journal-vm replay $(or $(POINTS),200) dist/write-log

flash-vm: ## what a reading costs the disk of a guest in HOURS (default 1) of its clock, at sync INTERVALS
	scripts/journal-vm flash $(or $(HOURS),1) dist/flash $(or $(INTERVALS),500ms 2s 10s 30s)

compare: build ## the agent beside other gateways on the same work (PEERS=folder of the harness)
	@mkdir -p dist
	PEERS="$(PEERS)" scripts/compare/run

faults-million: ## EXCHANGES (default 1000000) with one in ten faulty, none of which may give a wrong value
	HUB_EXCHANGES=$(or $(EXCHANGES),1000000) go test -count=1 -run TestNoWrongValueThroughFaults -v -timeout 30m ./drivers/modbus

bench: ## benchmarks in benchstat's form
	go test -run '^$$' -bench . -benchmem -count $(or $(COUNT),6) ./...

fuzz: ## every fuzz target for FUZZTIME (default 20s)
	scripts/fuzz $(or $(FUZZTIME),20s)

profiles: ## every shipped profile against the bytes of its manual, and what a poll of it costs
	go test -count=1 -run '^TestProfilesDecode' ./drivers/modbus
	go test -count=1 -v -run '^TestProfilesLint' ./drivers/modbus

usb-vm: ## a USB serial adapter pulled out and plugged in again, on a real kernel under QEMU
	scripts/usb-vm

clock-vm: ## the agent beside a clock that starts in 2001, is set, jumps and lies, on a real kernel under QEMU
	scripts/clock-vm

screenshots: build ## pictures of the page for the README, in deploy/docs
	scripts/screenshots

clean: ## remove what was built
	rm -rf bin dist
