"""For all tests: the process settings of the program, before torch is imported."""

from app.runtime import prepare_process

prepare_process()
