"""The mechanics are tried with vLLM's file in a package of the same name that imports nothing else: real processes, in seconds."""

import importlib
import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
import time
from contextlib import contextmanager
from pathlib import Path

import psutil

PROGRAM = """
import multiprocessing, os, signal, sys, time
import vllm
from vllm import spare_process
from vllm.spare_process import context_with_spares

def spares():
    return [one.pid for one in spare_process._spares]

def report(lock, pipe, queue, depth):
    pipe.send((os.getpid(), os.environ.get("SET_LATE"), os.environ.get("REMOVED"), "vllm.v1.engine.core" in sys.modules))
    with lock:
        queue.put(multiprocessing.current_process().name)
    if depth:
        queue.put(list(run(depth - 1)))
    sys.exit(7)

def run(depth, method=None):
    context = method or context_with_spares()
    lock, (here, there), queue = context.Lock(), context.Pipe(), context.Queue()
    expected = spares()[:1]
    child = context.Process(target=report, args=(lock, there, queue, depth), name="engine", daemon=depth == 0)
    child.start()
    there.close()
    seen, name = here.recv(), queue.get(timeout=60)
    below = queue.get(timeout=60) if depth else None
    child.join(60)
    return expected == [seen[0]], seen[1:], name, child.exitcode, child.pid == seen[0], below
"""


@contextmanager
def package():
    """Yield a folder with that package; `import vllm` launches spares, which import its empty modules."""
    spare_process = importlib.import_module("vllm.spare_process")
    with tempfile.TemporaryDirectory() as folder:
        for name in ("", *spare_process.MODULES):
            path = Path(folder, "vllm", *name.split(".")[1:])
            module = path.with_suffix(".py") if name else path / "__init__.py"
            module.parent.mkdir(parents=True, exist_ok=True)
            module.write_text("")
        Path(folder, "vllm/__init__.py").write_text("from vllm import spare_process\nspare_process.launch()\n")
        shutil.copy(str(spare_process.__file__), Path(folder, "vllm"))
        yield folder


def ran(program, *, spares="", **variables):
    """Return what a program printed that has `run` and the like, and asks for so many spares."""
    with package() as folder:
        script = Path(folder, "script.py")
        body = textwrap.indent(textwrap.dedent(program), "    ")
        script.write_text(f'{PROGRAM}\nif __name__ == "__main__":\n{body}')
        environ = {**os.environ, **variables, "PYTHONPATH": folder, "VLLM_SPARE_PROCESSES": spares}
        command = [sys.executable, script]
        done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=120, check=False)
        assert not done.returncode, done.stderr[-3000:]
        return done.stdout


def check_a_process_runs_in_a_spare_and_its_own_in_those_of_the_spare():
    found = ran(
        """
        os.environ["SET_LATE"] = "yes"
        del os.environ["REMOVED"]
        print(run(1))
        """,
        spares="1,1",
        REMOVED="before",
    )
    below = "[True, ('yes', None, True), 'engine', 7, True, None]"
    assert found == f"(True, ('yes', None, True), 'engine', 7, True, {below})\n", found


def check_without_a_spare_a_process_is_spawned():
    found = ran(
        """
        print(context_with_spares() is None, "VLLM_SPARE_PROCESSES" in os.environ)
        print(run(0, multiprocessing.get_context("spawn")))
        """
    )
    assert found == "True False\n(False, (None, None, False), 'engine', 7, True, None)\n", found


def check_a_second_process_and_one_whose_spare_has_ended_are_spawned():
    found = ran(
        """
        context = context_with_spares()
        print(run(0, context)[1], run(0, context)[1])
        os.environ[spare_process.VARIABLE] = "1"
        spare_process.launch()
        context = context_with_spares()
        os.kill(spares()[0], signal.SIGKILL)
        os.waitpid(spares()[0], 0)
        print(run(0, context)[1:5])
        """,
        spares="1",
    )
    assert found == "(None, None, True) (None, None, False)\n((None, None, False), 'engine', 7, True)\n", found


def check_spares_end_with_their_parent_and_say_nothing():
    started = ran("print(*spares(), flush=True); os._exit(0)", spares="2")
    until = time.monotonic() + 30
    while alive := [pid for pid in map(int, started.split()) if running(pid)]:
        assert time.monotonic() < until, alive
        time.sleep(0.05)


def running(pid):
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def check_a_process_with_cores_of_its_own_is_spawned_and_the_spare_ends():
    """OpenMP reads them once, and the spare has loaded it."""
    found = ran(
        """
        spare, context = spares()[0], context_with_spares()
        os.environ["GOMP_CPU_AFFINITY"] = "0"
        print(run(0, context)[:2], os.path.exists(f"/proc/{spare}"))
        """,
        spares="1",
    )
    assert found == "(False, (None, None, False)) False\n", found


def check_a_process_is_spawned_where_a_variable_has_changed_that_imports_read():
    """Attention that was imported without its breaks in CUDA graphs read memory that was not mapped."""
    for name, spawned in (("VLLM_USE_BREAKABLE_CUDAGRAPH", True), ("VLLM_USE_DEEP_GEMM_E8M0", False)):
        found = ran(
            f"""
            os.environ["{name}"] = "1"
            print(run(0)[0])
            """,
            spares="1",
            **{name: "0"},
        )
        assert found == f"{not spawned}\n", (name, found)


def check_every_variable_that_vllm_hands_to_ray_before_imports_is_one_of_them():
    ray = importlib.import_module("vllm.v1.executor.ray_env_utils")._RAY_WORKER_PRE_IMPORT_ENV_VARS
    assert ray
    assert ray <= {*importlib.import_module("vllm.spare_process").EARLY}


def check_vllm_that_forks_ends_its_spares_and_collects_garbage():
    found = ran(
        """
        import gc
        spare = spares()[0]
        print(context_with_spares("fork"), gc.isenabled(), os.path.exists(f"/proc/{spare}"))
        """,
        spares="1",
    )
    assert found == "None True False\n", found


def check_values_that_are_no_numbers_of_processes_launch_none():
    for value in ("x", "0", "-1", "99999999999", ",1", " 1", "\u00b2"):
        assert ran("print(spares(), 'VLLM_SPARE_PROCESSES' in os.environ)", spares=value) == "[] False\n", value


def check_no_spare_is_launched_where_the_libraries_come_from_a_path_that_is_set_later():
    assert ran("print(spares())", spares="1", VLLM_ENABLE_CUDA_COMPATIBILITY="1") == "[]\n"


def check_a_start_goes_on_without_spares_where_none_can_be_launched():
    found = ran(
        """
        import gc, resource
        os.environ[spare_process.VARIABLE] = "2"
        os.environ.pop(spare_process.OMP, None)
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, before[1]))
        spare_process.launch()
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
        print(spares(), spare_process.OMP in os.environ, gc.isenabled())
        """,
    )
    assert found == "[] False True\n", found


def check_a_spare_imports_nothing_from_the_working_directory():
    found = ran(
        """
        import tempfile
        os.chdir(tempfile.mkdtemp())
        open("pickle.py", "w").write("raise SystemExit('from the working directory')")
        os.environ[spare_process.VARIABLE] = "1"
        spare_process.launch()
        print(run(0))
        """
    )
    assert found == "(True, (None, None, True), 'engine', 7, True, None)\n", found


def check_the_end_of_a_message_arrives_although_a_fork_has_a_copy_of_the_socket():
    found = ran(
        """
        parent = os.getpid()
        if not os.fork():
            while os.getppid() == parent:
                time.sleep(0.05)
            os._exit(0)
        print(run(0))
        """,
        spares="1",
    )
    assert found == "(True, (None, None, True), 'engine', 7, True, None)\n", found


def check_garbage_is_collected_again_before_a_process_starts():
    found = ran(
        """
        import gc
        print(gc.isenabled())
        context_with_spares()
        print(gc.isenabled())
        """,
        spares="1",
    )
    assert found == "False\nTrue\n", found


def check_vllm_spawns_as_before_without_the_variable():
    from vllm.utils.system_utils import get_mp_context

    spare_process = importlib.import_module("vllm.spare_process")
    os.environ["VLLM_WORKER_MULTIPROC_METHOD"] = "spawn"
    assert spare_process.context_with_spares() is None
    assert type(get_mp_context()).__name__ == "SpawnContext"


def test_a_process_runs_in_a_spare_and_its_own_in_those_of_the_spare(needs_patch):
    needs_patch("check_a_process_runs_in_a_spare_and_its_own_in_those_of_the_spare", "spare_process")


def test_without_a_spare_a_process_is_spawned(holds):
    holds("check_without_a_spare_a_process_is_spawned")


def test_a_second_process_and_one_whose_spare_has_ended_are_spawned(holds):
    holds("check_a_second_process_and_one_whose_spare_has_ended_are_spawned")


def test_spares_end_with_their_parent_and_say_nothing(holds):
    holds("check_spares_end_with_their_parent_and_say_nothing")


def test_a_process_with_cores_of_its_own_is_spawned_and_the_spare_ends(holds):
    holds("check_a_process_with_cores_of_its_own_is_spawned_and_the_spare_ends")


def test_a_process_is_spawned_where_a_variable_has_changed_that_imports_read(holds):
    holds("check_a_process_is_spawned_where_a_variable_has_changed_that_imports_read")


def test_every_variable_that_vllm_hands_to_ray_before_imports_is_one_of_them(holds):
    holds("check_every_variable_that_vllm_hands_to_ray_before_imports_is_one_of_them")


def test_vllm_that_forks_ends_its_spares_and_collects_garbage(holds):
    holds("check_vllm_that_forks_ends_its_spares_and_collects_garbage")


def test_values_that_are_no_numbers_of_processes_launch_none(holds):
    holds("check_values_that_are_no_numbers_of_processes_launch_none")


def test_no_spare_is_launched_where_the_libraries_come_from_a_path_that_is_set_later(holds):
    holds("check_no_spare_is_launched_where_the_libraries_come_from_a_path_that_is_set_later")


def test_a_start_goes_on_without_spares_where_none_can_be_launched(holds):
    holds("check_a_start_goes_on_without_spares_where_none_can_be_launched")


def test_a_spare_imports_nothing_from_the_working_directory(holds):
    holds("check_a_spare_imports_nothing_from_the_working_directory")


def test_the_end_of_a_message_arrives_although_a_fork_has_a_copy_of_the_socket(holds):
    holds("check_the_end_of_a_message_arrives_although_a_fork_has_a_copy_of_the_socket")


def test_garbage_is_collected_again_before_a_process_starts(holds):
    holds("check_garbage_is_collected_again_before_a_process_starts")


def test_vllm_spawns_as_before_without_the_variable(holds):
    holds("check_vllm_spawns_as_before_without_the_variable")
