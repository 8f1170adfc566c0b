"""EncoderService on loopback: slides by path, patches by bytes, bounds, busy, cancellation."""

import asyncio
import contextlib
import io

import grpc
import numpy as np
import pytest
from PIL import Image

from sish_cluster.core import errors
from sish_cluster.core.slide import Slide
from sish_cluster.encoder.desk import Desk
from sish_cluster.encoder.local_actor import local_actors
from sish_cluster.encoder.patch_image import pixels_of
from sish_cluster.encoder.server import encoder_server, permitted_path
from sish_cluster.encoder.settings import ActorSettings, ServiceSettings
from sish_cluster.testing.slides import slide_without_mpp
from sish_cluster.wire.channel import open_channel
from sish_cluster.wire.serving import ServingSettings
from sish_cluster.wire.sish.v1 import encoder_pb2 as pb
from sish_cluster.wire.sish.v1 import encoder_pb2_grpc
from sish_cluster.wire.status import error_from_rpc
from sish_cluster.wire.values import SlideAssembler, pack_slide

PATIENT_S = 60
ALLOWED = ServiceSettings()


@contextlib.asynccontextmanager
async def service(encoder, folder, *, n_actors=1, **allowed):
    with local_actors(
        encoder.settings, ActorSettings(n_actors=n_actors), encoder=encoder
    ) as actors:
        async with served(actors, encoder, folder, **allowed) as stub:
            yield stub


@contextlib.asynccontextmanager
async def served(actors, encoder, folder, **allowed):
    server = encoder_server(
        actors,
        encoder.settings,
        ServiceSettings(slides_dir=folder, **allowed),
        ServingSettings("127.0.0.1:0", drain_s=0.0, grace_s=1.0),
        actor_settings=ActorSettings(poll_s=0.01),
    )
    address = await server.start()
    try:
        async with open_channel(address) as channel:
            yield encoder_pb2_grpc.EncoderServiceStub(channel)
    finally:
        await server.stop()


def asked(path, **slide):
    return pb.EncodeSlideRequest(path=path, slide=pack_slide(Slide("s1", **slide)))


async def answered(call):
    """Return the progress and the slide of a call, or raise its error."""
    assembler, progress, slide = SlideAssembler(), [], None
    try:
        async for response in call:
            if response.HasField("progress"):
                progress.append((response.progress.stage, response.progress.done))
            else:
                slide = assembler.add(response.slide)
    except grpc.aio.AioRpcError as error:
        raise error_from_rpc(error) from None
    return progress, slide


def png(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "png")
    return buffer.getvalue()


async def test_a_slide_by_path_streams_progress_then_the_slide(encoder, glands, drawn_folder):
    async with service(encoder, drawn_folder) as stub:
        request = pb.EncodeSlideRequest(path="glands.tif", slide=pack_slide(glands.slide))
        progress, codes_alone = await answered(stub.EncodeSlide(request, timeout=PATIENT_S))
        request.wants_embeddings = True
        _, slide = await answered(stub.EncodeSlide(request, timeout=PATIENT_S))
    plain = encoder.encode_slide(glands.path, glands.slide)
    assert slide.version == plain.version
    assert codes_alone.patches.dimensions == 0
    assert np.array_equal(codes_alone.patches.codes, plain.patches.codes)
    assert progress[0] == ("reading", 0)
    assert any(stage == "encoding" for stage, _ in progress)


async def test_the_request_gives_the_mpp_of_a_slide_that_has_none(encoder, tmp_path):
    slide_without_mpp(tmp_path / "bare.tif", side_px=512)
    async with service(encoder, tmp_path) as stub:
        with pytest.raises(errors.BadSlide, match="mpp"):
            await answered(stub.EncodeSlide(asked("bare.tif"), timeout=PATIENT_S))
        call = stub.EncodeSlide(asked("bare.tif", mpp=2.0), timeout=PATIENT_S)
        _, slide = await answered(call)
    assert slide.slide.mpp == 2.0


@pytest.mark.parametrize(
    "path", ["../secret.tif", "/etc/passwd", "", "link.tif", "a/../../secret.tif"]
)
async def test_a_path_may_not_leave_the_folder(encoder, tmp_path, path):
    folder = tmp_path / "slides"
    folder.mkdir()
    (tmp_path / "secret.tif").write_bytes(b"secret")
    (folder / "link.tif").symlink_to(tmp_path / "secret.tif")
    async with service(encoder, folder) as stub:
        with pytest.raises(errors.NotPermitted):
            await answered(stub.EncodeSlide(asked(path), timeout=PATIENT_S))


def test_links_inside_the_folder_are_followed_and_missing_files_are_bad_slides(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "a.tif").write_bytes(b"x")
    (tmp_path / "alias.tif").symlink_to(tmp_path / "deep" / "a.tif")
    assert permitted_path(tmp_path, "alias.tif") == (tmp_path / "deep" / "a.tif").resolve()
    with pytest.raises(errors.BadSlide, match="no such file"):
        permitted_path(tmp_path, "b.tif")
    with pytest.raises(errors.NotPermitted, match="--slides-dir"):
        permitted_path(None, "a.tif")


async def test_patches_are_answered_in_order_while_the_stream_is_open(encoder, patches):
    keys, codes, embeddings = encoder.encode_patches(patches)
    async with service(encoder, None, n_actors=2) as stub:
        call = stub.EncodePatches(timeout=PATIENT_S)
        for patch, key, code, embedding in zip(patches, keys, codes, embeddings, strict=True):
            await call.write(pb.EncodePatchesRequest(image=png(patch)))
            answer = await call.read()
            assert (answer.key, answer.code) == (int(key), code.tobytes())
            assert answer.embedding == embedding.astype("<f2").tobytes()
        await call.done_writing()
        assert await call.read() is grpc.aio.EOF


async def test_a_patch_that_is_no_picture_ends_the_stream_with_the_reason(encoder):
    async with service(encoder, None) as stub:
        call = stub.EncodePatches(iter([pb.EncodePatchesRequest(image=b"nonsense")]), timeout=9)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call.read()
            await call.read()
        error = error_from_rpc(caught.value)
    assert isinstance(error, errors.BadRequest)
    assert "cannot be decoded" in error.message


async def test_the_description_says_whose_weights_make_keys(encoder, drawn_folder):
    async with service(encoder, drawn_folder, n_actors=2) as stub:
        found = await stub.DescribeEncoder(pb.DescribeEncoderRequest(), timeout=PATIENT_S)
    assert (found.profile, found.code_bits, found.actors) == ("compact", 1024, 2)
    assert found.fingerprint == encoder.fingerprint
    assert "(trained, vqvae-compact.safetensors" in found.key_weights
    assert "densenet121" in found.texture_weights


async def test_a_caller_beyond_the_queue_is_told_to_come_later(encoder, drawn_folder):
    async with service(encoder, drawn_folder, max_waiting=0, retry_after_s=7.0) as stub:
        first = stub.EncodeSlide(asked("glands.tif"), timeout=PATIENT_S)
        await first.read()
        with pytest.raises(errors.EncoderBusy) as caught:
            await answered(stub.EncodeSlide(asked("fibres.tif"), timeout=PATIENT_S))
        assert caught.value.retry_after_s == 7.0
        first.cancel()


async def test_a_cancelled_call_frees_its_actor_for_the_next(encoder, drawn_folder):
    async with service(encoder, drawn_folder) as stub:
        first = stub.EncodeSlide(asked("glands.tif"), timeout=PATIENT_S)
        await first.read()
        first.cancel()
        _, slide = await answered(stub.EncodeSlide(asked("fibres.tif"), timeout=PATIENT_S))
    assert len(slide.patches) > 0


async def test_an_actor_handed_to_a_caller_that_left_goes_to_the_next():
    desk = Desk(["actor"], max_waiting=2, retry_after_s=1.0, stall_timeout_s=1.0)
    actor = await desk.taken()
    gone, stays = (asyncio.create_task(desk.taken()) for _ in range(2))
    await asyncio.sleep(0)
    assert desk.n_waiting == 2
    desk.given_back(actor)
    gone.cancel()
    assert await stays == "actor"
    assert desk.n_waiting == 0


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (png(np.zeros((64, 32, 3), np.uint8)), "32 x 64"),
        (png(np.zeros((16, 16, 3), np.uint8)), "16 x 16"),
        (png(np.zeros((4100, 4100), np.uint8)), "4100 x 4100"),
        (png(np.zeros((64, 64), np.uint16)), "mode I;16"),
        (png(np.zeros((64, 64, 3), np.uint8))[:60], "cannot be decoded"),
        (b"\0" * ((32 << 20) + 1), "bytes"),
    ],
    ids=["not square", "tiny", "huge", "16 bit", "torn", "too many bytes"],
)
def test_a_patch_image_out_of_bounds_is_refused(image, reason):
    with pytest.raises(errors.BadRequest, match=reason) as caught:
        pixels_of(image, side_px=512, settings=ALLOWED)
    assert caught.value.field == "image"


def test_transparent_pixels_are_white_and_pictures_get_the_profiles_side():
    clear = np.zeros((64, 64, 4), np.uint8)
    clear[:32] = (200, 10, 60, 255)
    pixels = pixels_of(png(clear), side_px=512, settings=ALLOWED)
    assert pixels.shape == (512, 512, 3)
    assert pixels[0, 0].tolist() == [200, 10, 60]
    assert pixels[-1, -1].tolist() == [255, 255, 255]
