# What people type; the work is in scripts/. `make` alone lists the targets.
.DEFAULT_GOAL := help
.PHONY: help demo test lint fuzz serve bench bootstrap vendor models test-open-webui test-backends test-revisions bundle vulkan-env clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

demo: ## from a fresh clone to a streamed answer of a real model
	@scripts/demo.sh

test: ## everything that can be checked, lint included
	@scripts/test.sh

lint: bootstrap-lint vendor ## format, clippy, documentation, licences
	@scripts/lint.sh

serve: bootstrap vendor models ## build and run the server
	@scripts/build.py -- cargo build --release
	@"$${CARGO_TARGET_DIR:-target}/release/shimmy" serve

bench: bootstrap vendor models ## criterion benchmarks
	@cargo bench

bootstrap: ## install the build tools that are missing
	@scripts/bootstrap.sh

.PHONY: bootstrap-lint
bootstrap-lint:
	@scripts/bootstrap.sh lint

vendor: ## fill vendor/llama.cpp with the pinned revision and check it
	@scripts/vendor.py

models: ## fetch the test models into the cache
	@scripts/model.py smollm2
	@scripts/model.py gemma3
	@scripts/model.py minilm

fuzz: ## each fuzz target a million times
	@scripts/test_fuzz.sh 1000000

test-open-webui: bootstrap vendor models ## Open WebUI on a running server, also in a browser
	@scripts/test_open_webui.sh

test-backends: bootstrap vendor models ## build with OpenCL, RPC, Vulkan and modules, and test that
	@scripts/test_backends.sh

test-revisions: bootstrap vendor models ## smoke tests on the pinned and on a newer llama.cpp
	@scripts/test_revisions.sh

bundle: bootstrap vendor ## backends as modules, in dist/; FEATURES="llama-vulkan llama-cuda" adds GPUs
	@scripts/bundle.sh dist $(FEATURES)

vulkan-env: ## print the line that sets VULKAN_SDK, for eval
	@scripts/vulkan_deps.sh

clean: ## remove what was built; sources and models stay
	@cargo clean
