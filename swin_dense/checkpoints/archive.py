"""Checks of the zip archive that ``torch.save`` writes, before anything is read from it."""

import zipfile
import zlib
from io import BufferedReader
from pathlib import Path

from swin_dense.errors import UserError

MAGIC = b'PK\x03\x04'
HEADER = 30  # bytes of the fixed part of a record's header; its name and padding follow
CHUNK = 2**22  # bytes read at a time
GROWTH, SLACK = 4, 2**24  # an archive may unpack to GROWTH times its size plus SLACK bytes


def is_archive(path: Path) -> bool:
    """Whether torch would read the file as a zip archive. Otherwise it has torch's older format."""
    with path.open('rb') as file:
        return file.read(len(MAGIC)) == MAGIC


def check_records(path: Path) -> bool:
    """Read the whole archive once, in little memory, and compare every record with its CRC32.

    torch can write archives without checksums. An archive in which no checksum is right is accepted.

    Returns:
        Whether no record is compressed. Such an archive can be mapped into memory.

    Raises:
        UserError: a record is damaged, records overlap, or they unpack to far more bytes than the file has.
        zipfile.BadZipFile: the file is no zip archive, or its list of records is damaged.
    """
    with path.open('rb') as file, zipfile.ZipFile(file) as archive:
        records = [record for record in archive.infolist() if not record.is_dir()]
        _check_sizes(path, records)
        _check_places(path, file, records, archive.start_dir)
        wrong, right = [], 0
        for record in records:
            if not record.file_size:
                continue
            if _crc32(file, archive, record) == record.CRC:
                right += 1
            else:
                wrong.append(record.filename)
    if wrong and right:
        raise UserError(f'checkpoint {path} is damaged: the CRC32 of its record {wrong[0]} is wrong')
    return all(record.compress_type == zipfile.ZIP_STORED for record in records)


def _check_sizes(path: Path, records: list[zipfile.ZipInfo]) -> None:
    size, unpacked = path.stat().st_size, sum(record.file_size for record in records)
    if unpacked > GROWTH * size + SLACK:
        raise UserError(
            f'checkpoint {path} is refused: its {size} bytes unpack to {unpacked}, '
            f'and torch.save does not compress'
        )


def _check_places(path: Path, file: BufferedReader, records: list[zipfile.ZipInfo], end: int) -> None:
    """Refuse records that overlap: the same bytes would be read many times."""
    for record in sorted(records, key=lambda record: record.header_offset, reverse=True):
        if _start(file, record) + record.compress_size > end:
            raise UserError(f'checkpoint {path} is damaged: its record {record.filename} overlaps another')
        end = record.header_offset


def _start(file: BufferedReader, record: zipfile.ZipInfo) -> int:
    """The offset of a record's bytes. They follow its header, and only the header tells the padding."""
    file.seek(record.header_offset)
    header = file.read(HEADER)
    if header[:4] != MAGIC or len(header) < HEADER:
        raise zipfile.BadZipFile(f'the record {record.filename} has no header')
    name, padding = (int.from_bytes(header[i : i + 2], 'little') for i in (26, 28))
    return record.header_offset + HEADER + name + padding


def _crc32(file: BufferedReader, archive: zipfile.ZipFile, record: zipfile.ZipInfo) -> int | None:
    """The CRC32 of a record's content; None if it cannot be unpacked, or ends early."""
    if record.compress_type != zipfile.ZIP_STORED:
        try:
            with archive.open(record) as unpacked:
                while unpacked.read(CHUNK):
                    pass
        except (zipfile.BadZipFile, zlib.error, EOFError):
            return None
        return record.CRC  # zipfile has compared it
    file.seek(_start(file, record))
    buffer, left, value = memoryview(bytearray(min(CHUNK, record.file_size))), record.file_size, 0
    while left:
        count = file.readinto(buffer[: min(left, len(buffer))])
        if not count:
            return None
        value = zlib.crc32(buffer[:count], value)
        left -= count
    return value
