from xclip_module.run import precision


def test_half_precision_on_a_cpu_is_refused(start):

    code, text = start(
        lambda config, run: precision.choose(config.run.precision, run.world.device), "--run.precision=fp16"
    )
    assert code == 2
    assert "needs a GPU" in text
