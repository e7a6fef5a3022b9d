# Each target sets up what it needs. `make demo` first; README.md tells the rest.
PYTHON ?= python3
RUN := .venv/bin/python
# processes that run tests; each takes a core and 2 GB
JOBS ?= 2

.PHONY: install demo test faults soak versions bench check audit lock clean

install: .venv/installed

.venv/installed: requirements.lock setup.cfg
	test -x $(RUN) || $(PYTHON) -m venv .venv
	$(RUN) -m pip install --quiet --disable-pip-version-check uv
	.venv/bin/uv pip install --quiet --compile-bytecode --python $(RUN) --requirement requirements.lock
	.venv/bin/uv pip install --quiet --python $(RUN) --no-deps --editable .
	touch $@

demo: install
	$(RUN) experiments/demo.py

test: install
	$(RUN) -m pytest --numprocesses $(JOBS) --dist loadfile

faults: install
	CELLSEG_FAULTS=1 $(RUN) -m pytest tests/faults

soak: install
	$(RUN) benchmarks/soak.py

versions: install
	.ci/versions

bench: install
	$(RUN) benchmarks/run_all.py

check: install
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy
	.venv/bin/lint-imports
	.venv/bin/bandit --quiet --recursive --ini setup.cfg cellseg search experiments benchmarks examples

# asks a service on the net for what is known of each version in the lock
audit: install
	.venv/bin/pip-audit --requirement requirements.lock --no-deps --disable-pip --progress-spinner off

lock:
	test -x .venv/bin/uv || { $(PYTHON) -m venv .venv && $(RUN) -m pip install --quiet uv; }
	.venv/bin/uv pip compile --quiet --universal --extra dev --no-header --no-emit-index-url setup.cfg --output-file requirements.lock
	.venv/bin/uv pip compile --quiet --python-version 3.11 --resolution lowest-direct --extra dev --no-header --no-emit-index-url setup.cfg --output-file requirements-lowest.lock

clean:
	rm -rf .venv demo build *.egg-info
