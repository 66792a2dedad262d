"""XMP that a result keeps: properties as they are, less those of the source's file."""

import random
import re
from xml.etree import ElementTree

import pytest

from tests.service.image.camera_files import GPS_WORDS, camera_file, xmp
from tests.service.image.samples import chunk, picture, png, save
from upscaled.image.decode import decode_file
from upscaled.image.kept_xmp import MAX_XMP_BYTES, keep_xmp
from upscaled.image.types import KeptMetadata, MetadataPlan

ALL = frozenset({"JPEG", "PNG", "WEBP", "AVIF", "TIFF", "HEIC"})
WITHOUT_GPS, WITH_GPS = MetadataPlan(False, 128, 96), MetadataPlan(True, 128, 96)
RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
NAMESPACES = {
    "rdf": RDF,
    "xmp": "http://ns.adobe.com/xap/1.0/",
    "tiff": "http://ns.adobe.com/tiff/1.0/",
    "exif": "http://ns.adobe.com/exif/1.0/",
    "dc": "http://purl.org/dc/elements/1.1/",
    "own": "urn:own",
}


def keep(packet: bytes | str, plan: MetadataPlan = WITHOUT_GPS, gain: float = 2.0) -> bytes:
    return keep_xmp(packet if isinstance(packet, bytes) else packet.encode(), plan, gain)


def packet_of(inside: str, declared: str = "") -> str:
    return (
        f'<rdf:RDF xmlns:rdf="{RDF}"><rdf:Description rdf:about="" {declared}>'
        f"{inside}</rdf:Description></rdf:RDF>"
    )


def kept_body(inside: str, declared: str = "", plan: MetadataPlan = WITHOUT_GPS) -> str:
    kept = keep(packet_of(inside, declared), plan).decode()
    found = re.search("<rdf:Description[^>]*>(.*)</rdf:Description>", kept, re.DOTALL)
    assert found is not None
    return found[1]


def read(kept: bytes) -> ElementTree.Element:
    found = ElementTree.fromstring(kept).find(".//rdf:Description", NAMESPACES)
    assert found is not None
    return found


def attribute(element: ElementTree.Element, name: str) -> str | None:
    prefix, _, local = name.partition(":")
    return element.get(f"{{{NAMESPACES[prefix]}}}{local}")


def test_properties_of_any_program_are_kept_with_their_prefixes() -> None:
    kept = keep(xmp())
    description = read(kept)
    assert attribute(description, "xmp:Rating") == "4"
    assert attribute(description, "tiff:Make") == "Maker & Söhne"
    assert attribute(description, "own:Note") == 'kept <as> it "is"'
    title = description.find("dc:title/rdf:Alt/rdf:li", NAMESPACES)
    assert title is not None
    assert title.text == "Häuser & Gärten"
    assert b"<dc:title>" in kept
    assert b'x:xmptk="a toolkit"' in kept
    assert kept.startswith(b'<?xpacket begin="\xef\xbb\xbf" id="W5M0MpCehiHzreSzNTczkc9d"?>')
    assert kept.endswith(b'</x:xmpmeta><?xpacket end="w"?>')


def test_sizes_are_those_of_the_result_and_the_orientation_is_left_out() -> None:
    description = read(keep(xmp()))
    assert attribute(description, "tiff:ImageWidth") == "128"
    assert attribute(description, "exif:PixelXDimension") == "128"
    assert attribute(description, "exif:PixelYDimension") == "96"
    assert description.findtext("tiff:ImageLength", None, NAMESPACES) == "96"
    assert attribute(description, "tiff:Orientation") is None


def test_comments_padding_and_thumbnails_are_left_out() -> None:
    kept = keep(xmp(), WITH_GPS)
    assert b"a comment" not in kept
    assert b"Thumbnails" not in kept
    assert b"L3RodW1ibmFpbA" not in kept
    assert len(kept) < 1000


def test_places_are_kept_only_where_the_plan_has_them() -> None:
    for word in (*GPS_WORDS, "gps"):
        assert word.lower().encode() not in keep(xmp()).lower().replace(b'dji="http', b"")
        assert word.lower().encode() in keep(xmp(), WITH_GPS).lower()


@pytest.mark.parametrize(
    ("namespace", "name"),
    [
        ("http://ns.adobe.com/exif/1.0/", "GPSLatitude"),
        ("http://www.dji.com/drone-dji/1.0/", "GpsLongtitude"),
        ("http://www.dji.com/drone-dji/1.0/", "Latitude"),
        ("http://www.dji.com/drone-dji/1.0/", "Longitude"),
        ("http://www.dji.com/drone-dji/1.0/", "LRFTargetLat"),
        ("http://www.dji.com/drone-dji/1.0/", "LRFTargetLon"),
        ("urn:any", "lon"),
        ("urn:any", "gpsAltitude"),
        ("http://www.w3.org/2003/01/geo/wgs84_pos#", "lat"),
    ],
)
def test_places_in_any_namespace_and_depth_are_left_out(namespace: str, name: str) -> None:
    inside = f"<o:list xmlns:o='urn:o'><a:{name}>51</a:{name}><o:li a:{name}='51'>x</o:li></o:list>"
    declared = f'xmlns:a="{namespace}"'
    assert kept_body(inside, declared) == '<o:list xmlns:o="urn:o"><o:li>x</o:li></o:list>'
    assert kept_body(inside, declared, WITH_GPS).count(f"a:{name}") == 3
    # Under another prefix than the usual one, and as the default namespace.
    assert kept_body(f"<{name} xmlns='{namespace}'>51</{name}>") == ""


@pytest.mark.parametrize("name", ["Flat", "Salon", "Latin", "Platform", "Longest"])
def test_a_name_that_only_sounds_like_a_place_is_kept(name: str) -> None:
    inside = f"<a:{name}>1</a:{name}>"
    assert kept_body(inside, 'xmlns:a="urn:any"') == inside


@pytest.mark.parametrize(
    ("namespace", "name"),
    [
        ("http://ns.adobe.com/tiff/1.0/", "Orientation"),
        ("http://ns.adobe.com/tiff/1.0/", "XResolution"),
        ("http://ns.adobe.com/exif/1.0/", "MakerNote"),
        ("http://ns.adobe.com/exif/1.0/", "FocalPlaneXResolution"),
        ("http://ns.adobe.com/xap/1.0/", "Thumbnails"),
        ("http://ns.adobe.com/xmp/note/", "HasExtendedXMP"),
        ("http://ns.adobe.com/hdr-gain-map/1.0/", "Version"),
        ("http://ns.apple.com/HDRGainMap/1.0/", "HDRGainMapVersion"),
        ("http://ns.google.com/photos/1.0/container/", "Directory"),
        ("http://ns.google.com/photos/1.0/camera/", "MotionPhoto"),
        ("http://www.metadataworkinggroup.com/schemas/regions/", "Regions"),
        ("http://ns.microsoft.com/photo/1.2/", "RegionInfo"),
    ],
)
def test_what_describes_the_sources_file_is_left_out(namespace: str, name: str) -> None:
    declared = f'xmlns:a="{namespace}" a:{name}="1"'
    assert kept_body(f"<a:{name}><a:more>1</a:more></a:{name}>", declared, WITH_GPS) == ""
    assert f"a:{name}" not in keep(packet_of("", declared), WITH_GPS).decode()


def test_the_numbers_of_a_panorama_grow_with_it() -> None:
    declared = (
        'xmlns:GPano="http://ns.google.com/photos/1.0/panorama/" '
        'GPano:FullPanoWidthPixels="1501" GPano:ProjectionType="equirectangular"'
    )
    kept = keep(packet_of("<GPano:CroppedAreaTopPixels>3</GPano:CroppedAreaTopPixels>", declared))
    assert b'GPano:FullPanoWidthPixels="3002"' in kept
    assert b'GPano:ProjectionType="equirectangular"' in kept
    assert b"Pixels>6<" in kept


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "AVIF", "HEIF", "TIFF", "BigTIFF"])
def test_packets_in_files_of_each_format_are_found(kind: str) -> None:
    if kind == "HEIF":
        pytest.importorskip("pillow_heif").register_heif_opener()
    kept = decode_file(camera_file(kind), ALL, WITHOUT_GPS).kept
    assert kept is not None
    assert kept.xmp == keep(xmp())


def in_png(*texts: bytes) -> KeptMetadata:
    chunks = b"".join(chunk(b"iTXt", text) for text in texts)
    kept = decode_file(png(picture().astype("u2"), 8, 2, before=chunks), plan=WITHOUT_GPS).kept
    assert kept is not None
    return kept


def test_a_png_has_its_packet_in_the_first_uncompressed_text_of_that_name() -> None:
    name = b"XML:com.adobe.xmp\0"
    assert in_png(b"Comment\0\0\0\0\0no", name + b"\0\0en\0word\0" + xmp()).xmp == keep(xmp())
    for broken in (b"", b"\0", b"\0\0\0", b"\x01\0\0\0" + xmp(), b"\0\0" + b"x" * 90):
        assert in_png(name + broken).xmp == b""


def test_a_packet_is_kept_up_to_what_a_jpeg_segment_holds_and_no_further() -> None:
    padding = MAX_XMP_BYTES - len(packet_of("")) - 1
    for more in (0, 1, 2):
        source = packet_of("") + " " * (padding + more)
        assert bool(keep(source)) == (len(source) <= MAX_XMP_BYTES)
    overhead = len(keep(packet_of("")))
    for length in (MAX_XMP_BYTES - overhead, MAX_XMP_BYTES - overhead + 1):
        kept = keep(packet_of("n" * length))
        assert len(kept) == (MAX_XMP_BYTES if length + overhead <= MAX_XMP_BYTES else 0)
    assert len(packet_of(">" * 20_000)) < MAX_XMP_BYTES  # but not once it is escaped
    assert keep(packet_of(">" * 20_000)) == b""


@pytest.mark.parametrize("depth", [60, 61, 62, 63, 3000])
def test_a_packet_is_kept_to_a_depth_of_64(depth: int) -> None:
    kept = keep(packet_of("<rdf:li>" * depth + "</rdf:li>" * depth))
    assert bool(kept) == (depth + 2 <= 64)


BOMB = (
    '<!DOCTYPE r [<!ENTITY a "aaaaaaaaaa">'
    + "".join(f'<!ENTITY {b} "{f"&{a};" * 10}">' for a, b in ("ab", "bc", "cd", "de", "ef"))
    + "]>"
    + packet_of("&f;")
)
OUTSIDE = '<!DOCTYPE r [<!ENTITY a SYSTEM "file:///etc/passwd">]>' + packet_of("&a;")


@pytest.mark.parametrize(
    "packet",
    [
        *(BOMB, OUTSIDE, "<!DOCTYPE r>" + packet_of(""), packet_of("&own;")),
        *("", "<", "no xml", packet_of("")[:-1], packet_of("<open>"), packet_of("\x01")),
        *("<html/>", '<x:other xmlns:x="adobe:ns:meta/"/>', packet_of("") + "<more/>"),
        packet_of("<undeclared:name/>"),
        packet_of("", 'undeclared:name="1"'),
        '<?xml version="1.0" encoding="none"?>' + packet_of(""),
        '<?xml version="1.0" encoding="zlib"?>' + packet_of(""),
        packet_of("").encode("utf-16-le"),
        packet_of("").encode() + b"\xff",
    ],
)
def test_a_packet_with_entities_or_of_broken_xml_is_dropped(packet: str | bytes) -> None:
    assert keep(packet, WITH_GPS) == b""


def test_zeros_behind_a_packet_and_a_byte_order_mark_before_it_do_no_harm() -> None:
    plain = keep(packet_of("text"))
    assert plain
    assert keep(packet_of("text").encode() + b"\0") == plain
    assert keep(b"\xef\xbb\xbf" + packet_of("text").encode()) == plain


def test_whatever_is_kept_of_a_broken_packet_is_kept_the_same_again() -> None:
    chance = random.Random(3)
    kept_ones = 0
    for _ in range(3000):
        broken = bytearray(xmp().rstrip())
        for _ in range(2):
            broken[chance.randrange(len(broken))] = chance.choice(b'<>&"/: ax1')
        kept = keep(bytes(broken))
        kept_ones += bool(kept)
        if kept:
            ElementTree.fromstring(kept)
            assert keep(kept) == kept
    assert kept_ones > 100


def test_a_result_is_written_with_the_packet_that_is_kept() -> None:
    source = save(picture(), "JPEG", xmp=packet_of("text").encode())
    kept = decode_file(source, plan=WITHOUT_GPS).kept
    assert kept == KeptMetadata(xmp=keep(packet_of("text")))
