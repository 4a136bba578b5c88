import subprocess

from dsv4_serve.demo import server
from dsv4_serve.entrypoint.client.local_replica import ServeProcess


def test_messages_of_dsv4_are_printed_and_those_of_vllm_are_not(tmp_path):
    log = tmp_path / "log"
    log.write_text(
        "dsv4: health on port 8001: /startupz\n(EngineCore pid=1) INFO x\ndsv4: draft gate: 95% of 210\ndsv4: ready\n"
    )
    process = subprocess.Popen(["true"])
    process.wait()
    assert server.messages(ServeProcess(process, 1, 2, log)) == ["draft gate: 95% of 210", "ready"]
