from migrate.pb import manifest_pb2 as _manifest_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Frame(_message.Message):
    __slots__ = ("hello", "ping", "failure", "process", "host", "prepare", "prepared", "copy", "image", "restore", "restored", "switch", "switched", "commit", "activated", "abort", "aborted", "goodbye", "gap", "ask", "answer", "compare", "compared", "connections", "stamp", "question", "payload_bytes")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    PING_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    PROCESS_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    PREPARE_FIELD_NUMBER: _ClassVar[int]
    PREPARED_FIELD_NUMBER: _ClassVar[int]
    COPY_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    RESTORE_FIELD_NUMBER: _ClassVar[int]
    RESTORED_FIELD_NUMBER: _ClassVar[int]
    SWITCH_FIELD_NUMBER: _ClassVar[int]
    SWITCHED_FIELD_NUMBER: _ClassVar[int]
    COMMIT_FIELD_NUMBER: _ClassVar[int]
    ACTIVATED_FIELD_NUMBER: _ClassVar[int]
    ABORT_FIELD_NUMBER: _ClassVar[int]
    ABORTED_FIELD_NUMBER: _ClassVar[int]
    GOODBYE_FIELD_NUMBER: _ClassVar[int]
    GAP_FIELD_NUMBER: _ClassVar[int]
    ASK_FIELD_NUMBER: _ClassVar[int]
    ANSWER_FIELD_NUMBER: _ClassVar[int]
    COMPARE_FIELD_NUMBER: _ClassVar[int]
    COMPARED_FIELD_NUMBER: _ClassVar[int]
    CONNECTIONS_FIELD_NUMBER: _ClassVar[int]
    STAMP_FIELD_NUMBER: _ClassVar[int]
    QUESTION_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_BYTES_FIELD_NUMBER: _ClassVar[int]
    hello: Hello
    ping: Ping
    failure: Failure
    process: ProcessInventory
    host: HostInventory
    prepare: Prepare
    prepared: Prepared
    copy: FileChunk
    image: FileChunk
    restore: Restore
    restored: Restored
    switch: Switch
    switched: Switched
    commit: Commit
    activated: Activated
    abort: Abort
    aborted: Aborted
    goodbye: Goodbye
    gap: GapPackets
    ask: Ask
    answer: Answer
    compare: Compare
    compared: Compared
    connections: Connections
    stamp: Stamp
    question: int
    payload_bytes: int
    def __init__(self, hello: _Optional[_Union[Hello, _Mapping[str, object]]] = ..., ping: _Optional[_Union[Ping, _Mapping[str, object]]] = ..., failure: _Optional[_Union[Failure, _Mapping[str, object]]] = ..., process: _Optional[_Union[ProcessInventory, _Mapping[str, object]]] = ..., host: _Optional[_Union[HostInventory, _Mapping[str, object]]] = ..., prepare: _Optional[_Union[Prepare, _Mapping[str, object]]] = ..., prepared: _Optional[_Union[Prepared, _Mapping[str, object]]] = ..., copy: _Optional[_Union[FileChunk, _Mapping[str, object]]] = ..., image: _Optional[_Union[FileChunk, _Mapping[str, object]]] = ..., restore: _Optional[_Union[Restore, _Mapping[str, object]]] = ..., restored: _Optional[_Union[Restored, _Mapping[str, object]]] = ..., switch: _Optional[_Union[Switch, _Mapping[str, object]]] = ..., switched: _Optional[_Union[Switched, _Mapping[str, object]]] = ..., commit: _Optional[_Union[Commit, _Mapping[str, object]]] = ..., activated: _Optional[_Union[Activated, _Mapping[str, object]]] = ..., abort: _Optional[_Union[Abort, _Mapping[str, object]]] = ..., aborted: _Optional[_Union[Aborted, _Mapping[str, object]]] = ..., goodbye: _Optional[_Union[Goodbye, _Mapping[str, object]]] = ..., gap: _Optional[_Union[GapPackets, _Mapping[str, object]]] = ..., ask: _Optional[_Union[Ask, _Mapping[str, object]]] = ..., answer: _Optional[_Union[Answer, _Mapping[str, object]]] = ..., compare: _Optional[_Union[Compare, _Mapping[str, object]]] = ..., compared: _Optional[_Union[Compared, _Mapping[str, object]]] = ..., connections: _Optional[_Union[Connections, _Mapping[str, object]]] = ..., stamp: _Optional[_Union[Stamp, _Mapping[str, object]]] = ..., question: _Optional[int] = ..., payload_bytes: _Optional[int] = ...) -> None: ...

class Stamp(_message.Message):
    __slots__ = ("sent_ns", "answered_ns", "received_ns")
    SENT_NS_FIELD_NUMBER: _ClassVar[int]
    ANSWERED_NS_FIELD_NUMBER: _ClassVar[int]
    RECEIVED_NS_FIELD_NUMBER: _ClassVar[int]
    sent_ns: int
    answered_ns: int
    received_ns: int
    def __init__(self, sent_ns: _Optional[int] = ..., answered_ns: _Optional[int] = ..., received_ns: _Optional[int] = ...) -> None: ...

class Hello(_message.Message):
    __slots__ = ("protocol", "version", "migration_id", "hostname", "boot_id", "logged", "oldest_protocol", "asked_by")
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    MIGRATION_ID_FIELD_NUMBER: _ClassVar[int]
    HOSTNAME_FIELD_NUMBER: _ClassVar[int]
    BOOT_ID_FIELD_NUMBER: _ClassVar[int]
    LOGGED_FIELD_NUMBER: _ClassVar[int]
    OLDEST_PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    ASKED_BY_FIELD_NUMBER: _ClassVar[int]
    protocol: int
    version: str
    migration_id: str
    hostname: str
    boot_id: str
    logged: bool
    oldest_protocol: int
    asked_by: str
    def __init__(self, protocol: _Optional[int] = ..., version: _Optional[str] = ..., migration_id: _Optional[str] = ..., hostname: _Optional[str] = ..., boot_id: _Optional[str] = ..., logged: _Optional[bool] = ..., oldest_protocol: _Optional[int] = ..., asked_by: _Optional[str] = ...) -> None: ...

class Ping(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Failure(_message.Message):
    __slots__ = ("phase", "kind", "message", "hint", "log_tail", "phases", "left", "not_here")
    PHASE_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    HINT_FIELD_NUMBER: _ClassVar[int]
    LOG_TAIL_FIELD_NUMBER: _ClassVar[int]
    PHASES_FIELD_NUMBER: _ClassVar[int]
    LEFT_FIELD_NUMBER: _ClassVar[int]
    NOT_HERE_FIELD_NUMBER: _ClassVar[int]
    phase: str
    kind: str
    message: str
    hint: str
    log_tail: _containers.RepeatedScalarFieldContainer[str]
    phases: _containers.RepeatedCompositeFieldContainer[PhaseTime]
    left: _containers.RepeatedScalarFieldContainer[str]
    not_here: bool
    def __init__(self, phase: _Optional[str] = ..., kind: _Optional[str] = ..., message: _Optional[str] = ..., hint: _Optional[str] = ..., log_tail: _Optional[_Iterable[str]] = ..., phases: _Optional[_Iterable[_Union[PhaseTime, _Mapping[str, object]]]] = ..., left: _Optional[_Iterable[str]] = ..., not_here: _Optional[bool] = ...) -> None: ...

class File(_message.Message):
    __slots__ = ("path", "use", "size_bytes", "build_id", "written", "mode", "exists", "uid", "gid", "directory", "regular", "append_only", "device", "inode", "storage", "content", "mapped_shared", "format", "locks", "real_path", "lockers", "writers", "mounts", "stored_bytes", "free_bytes", "file_system", "stored_files", "free_files", "read_only", "closed_directory", "attributes", "executed", "no_exec", "no_devices", "below", "more_below", "read_in_part")
    class Use(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        USE_UNSPECIFIED: _ClassVar[File.Use]
        OPEN: _ClassVar[File.Use]
        MAPPED: _ClassVar[File.Use]
        WORKING_DIRECTORY: _ClassVar[File.Use]
        ROOT_DIRECTORY: _ClassVar[File.Use]
        EXECUTABLE: _ClassVar[File.Use]
        SOCKET_DIRECTORY: _ClassVar[File.Use]
        NEIGHBOUR: _ClassVar[File.Use]
        COPIED_TREE: _ClassVar[File.Use]
        WATCHED: _ClassVar[File.Use]
        KERNEL_MADE: _ClassVar[File.Use]
        DELETED: _ClassVar[File.Use]
    USE_UNSPECIFIED: File.Use
    OPEN: File.Use
    MAPPED: File.Use
    WORKING_DIRECTORY: File.Use
    ROOT_DIRECTORY: File.Use
    EXECUTABLE: File.Use
    SOCKET_DIRECTORY: File.Use
    NEIGHBOUR: File.Use
    COPIED_TREE: File.Use
    WATCHED: File.Use
    KERNEL_MADE: File.Use
    DELETED: File.Use
    class Attribute(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        ATTRIBUTE_UNSPECIFIED: _ClassVar[File.Attribute]
        IMMUTABLE: _ClassVar[File.Attribute]
        APPEND_ONLY: _ClassVar[File.Attribute]
    ATTRIBUTE_UNSPECIFIED: File.Attribute
    IMMUTABLE: File.Attribute
    APPEND_ONLY: File.Attribute
    PATH_FIELD_NUMBER: _ClassVar[int]
    USE_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    BUILD_ID_FIELD_NUMBER: _ClassVar[int]
    WRITTEN_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    EXISTS_FIELD_NUMBER: _ClassVar[int]
    UID_FIELD_NUMBER: _ClassVar[int]
    GID_FIELD_NUMBER: _ClassVar[int]
    DIRECTORY_FIELD_NUMBER: _ClassVar[int]
    REGULAR_FIELD_NUMBER: _ClassVar[int]
    APPEND_ONLY_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    INODE_FIELD_NUMBER: _ClassVar[int]
    STORAGE_FIELD_NUMBER: _ClassVar[int]
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    MAPPED_SHARED_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    LOCKS_FIELD_NUMBER: _ClassVar[int]
    REAL_PATH_FIELD_NUMBER: _ClassVar[int]
    LOCKERS_FIELD_NUMBER: _ClassVar[int]
    WRITERS_FIELD_NUMBER: _ClassVar[int]
    MOUNTS_FIELD_NUMBER: _ClassVar[int]
    STORED_BYTES_FIELD_NUMBER: _ClassVar[int]
    FREE_BYTES_FIELD_NUMBER: _ClassVar[int]
    FILE_SYSTEM_FIELD_NUMBER: _ClassVar[int]
    STORED_FILES_FIELD_NUMBER: _ClassVar[int]
    FREE_FILES_FIELD_NUMBER: _ClassVar[int]
    READ_ONLY_FIELD_NUMBER: _ClassVar[int]
    CLOSED_DIRECTORY_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    EXECUTED_FIELD_NUMBER: _ClassVar[int]
    NO_EXEC_FIELD_NUMBER: _ClassVar[int]
    NO_DEVICES_FIELD_NUMBER: _ClassVar[int]
    BELOW_FIELD_NUMBER: _ClassVar[int]
    MORE_BELOW_FIELD_NUMBER: _ClassVar[int]
    READ_IN_PART_FIELD_NUMBER: _ClassVar[int]
    path: str
    use: File.Use
    size_bytes: int
    build_id: bytes
    written: bool
    mode: int
    exists: bool
    uid: int
    gid: int
    directory: bool
    regular: bool
    append_only: bool
    device: int
    inode: int
    storage: str
    content: bytes
    mapped_shared: bool
    format: str
    locks: _containers.RepeatedScalarFieldContainer[str]
    real_path: str
    lockers: _containers.RepeatedScalarFieldContainer[str]
    writers: _containers.RepeatedScalarFieldContainer[str]
    mounts: _containers.RepeatedScalarFieldContainer[str]
    stored_bytes: int
    free_bytes: int
    file_system: int
    stored_files: int
    free_files: int
    read_only: str
    closed_directory: str
    attributes: _containers.RepeatedScalarFieldContainer[File.Attribute]
    executed: bool
    no_exec: str
    no_devices: str
    below: _containers.RepeatedScalarFieldContainer[str]
    more_below: bool
    read_in_part: bool
    def __init__(self, path: _Optional[str] = ..., use: _Optional[_Union[File.Use, str]] = ..., size_bytes: _Optional[int] = ..., build_id: _Optional[bytes] = ..., written: _Optional[bool] = ..., mode: _Optional[int] = ..., exists: _Optional[bool] = ..., uid: _Optional[int] = ..., gid: _Optional[int] = ..., directory: _Optional[bool] = ..., regular: _Optional[bool] = ..., append_only: _Optional[bool] = ..., device: _Optional[int] = ..., inode: _Optional[int] = ..., storage: _Optional[str] = ..., content: _Optional[bytes] = ..., mapped_shared: _Optional[bool] = ..., format: _Optional[str] = ..., locks: _Optional[_Iterable[str]] = ..., real_path: _Optional[str] = ..., lockers: _Optional[_Iterable[str]] = ..., writers: _Optional[_Iterable[str]] = ..., mounts: _Optional[_Iterable[str]] = ..., stored_bytes: _Optional[int] = ..., free_bytes: _Optional[int] = ..., file_system: _Optional[int] = ..., stored_files: _Optional[int] = ..., free_files: _Optional[int] = ..., read_only: _Optional[str] = ..., closed_directory: _Optional[str] = ..., attributes: _Optional[_Iterable[_Union[File.Attribute, str]]] = ..., executed: _Optional[bool] = ..., no_exec: _Optional[str] = ..., no_devices: _Optional[str] = ..., below: _Optional[_Iterable[str]] = ..., more_below: _Optional[bool] = ..., read_in_part: _Optional[bool] = ...) -> None: ...

class Compare(_message.Message):
    __slots__ = ("files",)
    FILES_FIELD_NUMBER: _ClassVar[int]
    files: _containers.RepeatedCompositeFieldContainer[File]
    def __init__(self, files: _Optional[_Iterable[_Union[File, _Mapping[str, object]]]] = ...) -> None: ...

class Compared(_message.Message):
    __slots__ = ("files",)
    FILES_FIELD_NUMBER: _ClassVar[int]
    files: _containers.RepeatedCompositeFieldContainer[File]
    def __init__(self, files: _Optional[_Iterable[_Union[File, _Mapping[str, object]]]] = ...) -> None: ...

class TakenName(_message.Message):
    __slots__ = ("kind", "name", "pid", "fd", "holder", "port", "ip", "shares", "ipv6_only", "occupied", "socket_type", "bound_name", "mode", "uid", "gid", "backlog", "linked_name", "elsewhere")
    class Kind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        KIND_UNSPECIFIED: _ClassVar[TakenName.Kind]
        PATH: _ClassVar[TakenName.Kind]
        ABSTRACT: _ClassVar[TakenName.Kind]
        UDP: _ClassVar[TakenName.Kind]
        INTERFACE: _ClassVar[TakenName.Kind]
        TERMINAL: _ClassVar[TakenName.Kind]
        PING: _ClassVar[TakenName.Kind]
        RECEIVER: _ClassVar[TakenName.Kind]
    KIND_UNSPECIFIED: TakenName.Kind
    PATH: TakenName.Kind
    ABSTRACT: TakenName.Kind
    UDP: TakenName.Kind
    INTERFACE: TakenName.Kind
    TERMINAL: TakenName.Kind
    PING: TakenName.Kind
    RECEIVER: TakenName.Kind
    KIND_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    FD_FIELD_NUMBER: _ClassVar[int]
    HOLDER_FIELD_NUMBER: _ClassVar[int]
    PORT_FIELD_NUMBER: _ClassVar[int]
    IP_FIELD_NUMBER: _ClassVar[int]
    SHARES_FIELD_NUMBER: _ClassVar[int]
    IPV6_ONLY_FIELD_NUMBER: _ClassVar[int]
    OCCUPIED_FIELD_NUMBER: _ClassVar[int]
    SOCKET_TYPE_FIELD_NUMBER: _ClassVar[int]
    BOUND_NAME_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    UID_FIELD_NUMBER: _ClassVar[int]
    GID_FIELD_NUMBER: _ClassVar[int]
    BACKLOG_FIELD_NUMBER: _ClassVar[int]
    LINKED_NAME_FIELD_NUMBER: _ClassVar[int]
    ELSEWHERE_FIELD_NUMBER: _ClassVar[int]
    kind: TakenName.Kind
    name: str
    pid: int
    fd: int
    holder: str
    port: int
    ip: bytes
    shares: bool
    ipv6_only: bool
    occupied: bool
    socket_type: int
    bound_name: str
    mode: int
    uid: int
    gid: int
    backlog: int
    linked_name: str
    elsewhere: str
    def __init__(self, kind: _Optional[_Union[TakenName.Kind, str]] = ..., name: _Optional[str] = ..., pid: _Optional[int] = ..., fd: _Optional[int] = ..., holder: _Optional[str] = ..., port: _Optional[int] = ..., ip: _Optional[bytes] = ..., shares: _Optional[bool] = ..., ipv6_only: _Optional[bool] = ..., occupied: _Optional[bool] = ..., socket_type: _Optional[int] = ..., bound_name: _Optional[str] = ..., mode: _Optional[int] = ..., uid: _Optional[int] = ..., gid: _Optional[int] = ..., backlog: _Optional[int] = ..., linked_name: _Optional[str] = ..., elsewhere: _Optional[str] = ...) -> None: ...

class Reconnection(_message.Message):
    __slots__ = ("inode", "name", "pid", "fd", "socket_type", "uid", "gid", "opening", "nonblocking", "options", "busy")
    class OptionsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: int
        value: bytes
        def __init__(self, key: _Optional[int] = ..., value: _Optional[bytes] = ...) -> None: ...
    INODE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    FD_FIELD_NUMBER: _ClassVar[int]
    SOCKET_TYPE_FIELD_NUMBER: _ClassVar[int]
    UID_FIELD_NUMBER: _ClassVar[int]
    GID_FIELD_NUMBER: _ClassVar[int]
    OPENING_FIELD_NUMBER: _ClassVar[int]
    NONBLOCKING_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    BUSY_FIELD_NUMBER: _ClassVar[int]
    inode: int
    name: str
    pid: int
    fd: int
    socket_type: int
    uid: int
    gid: int
    opening: bytes
    nonblocking: bool
    options: _containers.ScalarMap[int, bytes]
    busy: bool
    def __init__(self, inode: _Optional[int] = ..., name: _Optional[str] = ..., pid: _Optional[int] = ..., fd: _Optional[int] = ..., socket_type: _Optional[int] = ..., uid: _Optional[int] = ..., gid: _Optional[int] = ..., opening: _Optional[bytes] = ..., nonblocking: _Optional[bool] = ..., options: _Optional[_Mapping[int, bytes]] = ..., busy: _Optional[bool] = ...) -> None: ...

class TcpSocket(_message.Message):
    __slots__ = ("pid", "fd", "inode", "state", "local_ip", "local_port", "peer_ip", "peer_port", "congestion", "problem", "ipv6_socket", "nowhere", "ipv6_only", "device", "holder", "backlog")
    PID_FIELD_NUMBER: _ClassVar[int]
    FD_FIELD_NUMBER: _ClassVar[int]
    INODE_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    LOCAL_IP_FIELD_NUMBER: _ClassVar[int]
    LOCAL_PORT_FIELD_NUMBER: _ClassVar[int]
    PEER_IP_FIELD_NUMBER: _ClassVar[int]
    PEER_PORT_FIELD_NUMBER: _ClassVar[int]
    CONGESTION_FIELD_NUMBER: _ClassVar[int]
    PROBLEM_FIELD_NUMBER: _ClassVar[int]
    IPV6_SOCKET_FIELD_NUMBER: _ClassVar[int]
    NOWHERE_FIELD_NUMBER: _ClassVar[int]
    IPV6_ONLY_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    HOLDER_FIELD_NUMBER: _ClassVar[int]
    BACKLOG_FIELD_NUMBER: _ClassVar[int]
    pid: int
    fd: int
    inode: int
    state: int
    local_ip: bytes
    local_port: int
    peer_ip: bytes
    peer_port: int
    congestion: str
    problem: str
    ipv6_socket: bool
    nowhere: bool
    ipv6_only: bool
    device: str
    holder: str
    backlog: int
    def __init__(self, pid: _Optional[int] = ..., fd: _Optional[int] = ..., inode: _Optional[int] = ..., state: _Optional[int] = ..., local_ip: _Optional[bytes] = ..., local_port: _Optional[int] = ..., peer_ip: _Optional[bytes] = ..., peer_port: _Optional[int] = ..., congestion: _Optional[str] = ..., problem: _Optional[str] = ..., ipv6_socket: _Optional[bool] = ..., nowhere: _Optional[bool] = ..., ipv6_only: _Optional[bool] = ..., device: _Optional[str] = ..., holder: _Optional[str] = ..., backlog: _Optional[int] = ...) -> None: ...

class Task(_message.Message):
    __slots__ = ("pid", "ppid", "sid", "pgid", "comm", "tids", "kernel_thread", "uid", "zombie", "memory_policy", "mappings", "private_bytes", "highest_descriptor", "largest_private_bytes")
    PID_FIELD_NUMBER: _ClassVar[int]
    PPID_FIELD_NUMBER: _ClassVar[int]
    SID_FIELD_NUMBER: _ClassVar[int]
    PGID_FIELD_NUMBER: _ClassVar[int]
    COMM_FIELD_NUMBER: _ClassVar[int]
    TIDS_FIELD_NUMBER: _ClassVar[int]
    KERNEL_THREAD_FIELD_NUMBER: _ClassVar[int]
    UID_FIELD_NUMBER: _ClassVar[int]
    ZOMBIE_FIELD_NUMBER: _ClassVar[int]
    MEMORY_POLICY_FIELD_NUMBER: _ClassVar[int]
    MAPPINGS_FIELD_NUMBER: _ClassVar[int]
    PRIVATE_BYTES_FIELD_NUMBER: _ClassVar[int]
    HIGHEST_DESCRIPTOR_FIELD_NUMBER: _ClassVar[int]
    LARGEST_PRIVATE_BYTES_FIELD_NUMBER: _ClassVar[int]
    pid: int
    ppid: int
    sid: int
    pgid: int
    comm: str
    tids: _containers.RepeatedScalarFieldContainer[int]
    kernel_thread: bool
    uid: int
    zombie: bool
    memory_policy: str
    mappings: int
    private_bytes: int
    highest_descriptor: int
    largest_private_bytes: int
    def __init__(self, pid: _Optional[int] = ..., ppid: _Optional[int] = ..., sid: _Optional[int] = ..., pgid: _Optional[int] = ..., comm: _Optional[str] = ..., tids: _Optional[_Iterable[int]] = ..., kernel_thread: _Optional[bool] = ..., uid: _Optional[int] = ..., zombie: _Optional[bool] = ..., memory_policy: _Optional[str] = ..., mappings: _Optional[int] = ..., private_bytes: _Optional[int] = ..., highest_descriptor: _Optional[int] = ..., largest_private_bytes: _Optional[int] = ...) -> None: ...

class Obstacle(_message.Message):
    __slots__ = ("code", "pid", "fd", "what", "size_bytes")
    CODE_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    FD_FIELD_NUMBER: _ClassVar[int]
    WHAT_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    code: str
    pid: int
    fd: int
    what: str
    size_bytes: int
    def __init__(self, code: _Optional[str] = ..., pid: _Optional[int] = ..., fd: _Optional[int] = ..., what: _Optional[str] = ..., size_bytes: _Optional[int] = ...) -> None: ...

class ProcessInventory(_message.Message):
    __slots__ = ("root_pid", "tasks", "files", "sockets", "memory_bytes", "service_addresses", "obstacles", "other_addresses", "driver_pids", "needed_pids", "names", "supervisors", "cgroups", "queued_signals", "reconnections", "session_ended", "nowhere", "container", "unit")
    ROOT_PID_FIELD_NUMBER: _ClassVar[int]
    TASKS_FIELD_NUMBER: _ClassVar[int]
    FILES_FIELD_NUMBER: _ClassVar[int]
    SOCKETS_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    SERVICE_ADDRESSES_FIELD_NUMBER: _ClassVar[int]
    OBSTACLES_FIELD_NUMBER: _ClassVar[int]
    OTHER_ADDRESSES_FIELD_NUMBER: _ClassVar[int]
    DRIVER_PIDS_FIELD_NUMBER: _ClassVar[int]
    NEEDED_PIDS_FIELD_NUMBER: _ClassVar[int]
    NAMES_FIELD_NUMBER: _ClassVar[int]
    SUPERVISORS_FIELD_NUMBER: _ClassVar[int]
    CGROUPS_FIELD_NUMBER: _ClassVar[int]
    QUEUED_SIGNALS_FIELD_NUMBER: _ClassVar[int]
    RECONNECTIONS_FIELD_NUMBER: _ClassVar[int]
    SESSION_ENDED_FIELD_NUMBER: _ClassVar[int]
    NOWHERE_FIELD_NUMBER: _ClassVar[int]
    CONTAINER_FIELD_NUMBER: _ClassVar[int]
    UNIT_FIELD_NUMBER: _ClassVar[int]
    root_pid: int
    tasks: _containers.RepeatedCompositeFieldContainer[Task]
    files: _containers.RepeatedCompositeFieldContainer[File]
    sockets: _containers.RepeatedCompositeFieldContainer[TcpSocket]
    memory_bytes: int
    service_addresses: _containers.RepeatedScalarFieldContainer[str]
    obstacles: _containers.RepeatedCompositeFieldContainer[Obstacle]
    other_addresses: _containers.RepeatedScalarFieldContainer[str]
    driver_pids: _containers.RepeatedScalarFieldContainer[int]
    needed_pids: _containers.RepeatedScalarFieldContainer[int]
    names: _containers.RepeatedCompositeFieldContainer[TakenName]
    supervisors: _containers.RepeatedCompositeFieldContainer[Supervisor]
    cgroups: _containers.RepeatedCompositeFieldContainer[Cgroup]
    queued_signals: int
    reconnections: _containers.RepeatedCompositeFieldContainer[Reconnection]
    session_ended: bool
    nowhere: _containers.RepeatedScalarFieldContainer[str]
    container: Container
    unit: Unit
    def __init__(self, root_pid: _Optional[int] = ..., tasks: _Optional[_Iterable[_Union[Task, _Mapping[str, object]]]] = ..., files: _Optional[_Iterable[_Union[File, _Mapping[str, object]]]] = ..., sockets: _Optional[_Iterable[_Union[TcpSocket, _Mapping[str, object]]]] = ..., memory_bytes: _Optional[int] = ..., service_addresses: _Optional[_Iterable[str]] = ..., obstacles: _Optional[_Iterable[_Union[Obstacle, _Mapping[str, object]]]] = ..., other_addresses: _Optional[_Iterable[str]] = ..., driver_pids: _Optional[_Iterable[int]] = ..., needed_pids: _Optional[_Iterable[int]] = ..., names: _Optional[_Iterable[_Union[TakenName, _Mapping[str, object]]]] = ..., supervisors: _Optional[_Iterable[_Union[Supervisor, _Mapping[str, object]]]] = ..., cgroups: _Optional[_Iterable[_Union[Cgroup, _Mapping[str, object]]]] = ..., queued_signals: _Optional[int] = ..., reconnections: _Optional[_Iterable[_Union[Reconnection, _Mapping[str, object]]]] = ..., session_ended: _Optional[bool] = ..., nowhere: _Optional[_Iterable[str]] = ..., container: _Optional[_Union[Container, _Mapping[str, object]]] = ..., unit: _Optional[_Union[Unit, _Mapping[str, object]]] = ...) -> None: ...

class Unit(_message.Message):
    __slots__ = ("name", "properties", "files", "streams", "others", "namespaces", "numbered", "uid", "gid", "mode")
    class PropertiesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    class StreamsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: int
        value: int
        def __init__(self, key: _Optional[int] = ..., value: _Optional[int] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    PROPERTIES_FIELD_NUMBER: _ClassVar[int]
    FILES_FIELD_NUMBER: _ClassVar[int]
    STREAMS_FIELD_NUMBER: _ClassVar[int]
    OTHERS_FIELD_NUMBER: _ClassVar[int]
    NAMESPACES_FIELD_NUMBER: _ClassVar[int]
    NUMBERED_FIELD_NUMBER: _ClassVar[int]
    UID_FIELD_NUMBER: _ClassVar[int]
    GID_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    name: str
    properties: _containers.ScalarMap[str, str]
    files: bytes
    streams: _containers.ScalarMap[int, int]
    others: _containers.RepeatedScalarFieldContainer[str]
    namespaces: _containers.RepeatedScalarFieldContainer[str]
    numbered: bool
    uid: int
    gid: int
    mode: int
    def __init__(self, name: _Optional[str] = ..., properties: _Optional[_Mapping[str, str]] = ..., files: _Optional[bytes] = ..., streams: _Optional[_Mapping[int, int]] = ..., others: _Optional[_Iterable[str]] = ..., namespaces: _Optional[_Iterable[str]] = ..., numbered: _Optional[bool] = ..., uid: _Optional[int] = ..., gid: _Optional[int] = ..., mode: _Optional[int] = ...) -> None: ...

class Container(_message.Message):
    __slots__ = ("runtime", "name", "version", "bundle", "network", "configuration", "descriptors", "cgroups", "joined", "problem", "id", "by", "archive", "image", "image_name", "networks", "addresses", "storage", "hardware", "sends_image")
    RUNTIME_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_FIELD_NUMBER: _ClassVar[int]
    NETWORK_FIELD_NUMBER: _ClassVar[int]
    CONFIGURATION_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTORS_FIELD_NUMBER: _ClassVar[int]
    CGROUPS_FIELD_NUMBER: _ClassVar[int]
    JOINED_FIELD_NUMBER: _ClassVar[int]
    PROBLEM_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    BY_FIELD_NUMBER: _ClassVar[int]
    ARCHIVE_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    IMAGE_NAME_FIELD_NUMBER: _ClassVar[int]
    NETWORKS_FIELD_NUMBER: _ClassVar[int]
    ADDRESSES_FIELD_NUMBER: _ClassVar[int]
    STORAGE_FIELD_NUMBER: _ClassVar[int]
    HARDWARE_FIELD_NUMBER: _ClassVar[int]
    SENDS_IMAGE_FIELD_NUMBER: _ClassVar[int]
    runtime: str
    name: str
    version: str
    bundle: str
    network: str
    configuration: bytes
    descriptors: bytes
    cgroups: str
    joined: bool
    problem: str
    id: str
    by: str
    archive: bytes
    image: str
    image_name: str
    networks: _containers.RepeatedScalarFieldContainer[str]
    addresses: _containers.RepeatedScalarFieldContainer[str]
    storage: str
    hardware: _containers.RepeatedScalarFieldContainer[str]
    sends_image: bool
    def __init__(self, runtime: _Optional[str] = ..., name: _Optional[str] = ..., version: _Optional[str] = ..., bundle: _Optional[str] = ..., network: _Optional[str] = ..., configuration: _Optional[bytes] = ..., descriptors: _Optional[bytes] = ..., cgroups: _Optional[str] = ..., joined: _Optional[bool] = ..., problem: _Optional[str] = ..., id: _Optional[str] = ..., by: _Optional[str] = ..., archive: _Optional[bytes] = ..., image: _Optional[str] = ..., image_name: _Optional[str] = ..., networks: _Optional[_Iterable[str]] = ..., addresses: _Optional[_Iterable[str]] = ..., storage: _Optional[str] = ..., hardware: _Optional[_Iterable[str]] = ..., sends_image: _Optional[bool] = ...) -> None: ...

class Refusal(_message.Message):
    __slots__ = ("code", "text", "remedy")
    CODE_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    REMEDY_FIELD_NUMBER: _ClassVar[int]
    code: str
    text: str
    remedy: str
    def __init__(self, code: _Optional[str] = ..., text: _Optional[str] = ..., remedy: _Optional[str] = ...) -> None: ...

class Cgroup(_message.Message):
    __slots__ = ("path", "limits")
    PATH_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    path: str
    limits: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, path: _Optional[str] = ..., limits: _Optional[_Iterable[str]] = ...) -> None: ...

class Supervisor(_message.Message):
    __slots__ = ("pid", "comm", "unit", "restart", "of_user", "starts_nothing")
    PID_FIELD_NUMBER: _ClassVar[int]
    COMM_FIELD_NUMBER: _ClassVar[int]
    UNIT_FIELD_NUMBER: _ClassVar[int]
    RESTART_FIELD_NUMBER: _ClassVar[int]
    OF_USER_FIELD_NUMBER: _ClassVar[int]
    STARTS_NOTHING_FIELD_NUMBER: _ClassVar[int]
    pid: int
    comm: str
    unit: str
    restart: str
    of_user: bool
    starts_nothing: bool
    def __init__(self, pid: _Optional[int] = ..., comm: _Optional[str] = ..., unit: _Optional[str] = ..., restart: _Optional[str] = ..., of_user: _Optional[bool] = ..., starts_nothing: _Optional[bool] = ...) -> None: ...

class Interface(_message.Message):
    __slots__ = ("name", "addresses", "up", "hardware")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ADDRESSES_FIELD_NUMBER: _ClassVar[int]
    UP_FIELD_NUMBER: _ClassVar[int]
    HARDWARE_FIELD_NUMBER: _ClassVar[int]
    name: str
    addresses: _containers.RepeatedScalarFieldContainer[str]
    up: bool
    hardware: str
    def __init__(self, name: _Optional[str] = ..., addresses: _Optional[_Iterable[str]] = ..., up: _Optional[bool] = ..., hardware: _Optional[str] = ...) -> None: ...

class HostInventory(_message.Message):
    __slots__ = ("hostname", "version", "root", "kernel", "machine", "criu_version", "criu_problem", "image_space_bytes", "memory_available_bytes", "congestion_algorithms", "interfaces", "taken_pids", "taken_ports", "files", "problems", "ssh_addresses", "pid_max", "own_addresses", "cpu_features", "taken_by", "taken_names", "most_descriptors", "cgroup", "most_backlog", "most_mappings", "end_of_descriptors", "unpromised_bytes", "most_signals", "promised_at_once_bytes", "refusals", "lacks_configuration", "reconnects", "deaf", "nonlocal_bind", "lacks_image", "unit_differs")
    class TakenByEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: int
        value: str
        def __init__(self, key: _Optional[int] = ..., value: _Optional[str] = ...) -> None: ...
    HOSTNAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    ROOT_FIELD_NUMBER: _ClassVar[int]
    KERNEL_FIELD_NUMBER: _ClassVar[int]
    MACHINE_FIELD_NUMBER: _ClassVar[int]
    CRIU_VERSION_FIELD_NUMBER: _ClassVar[int]
    CRIU_PROBLEM_FIELD_NUMBER: _ClassVar[int]
    IMAGE_SPACE_BYTES_FIELD_NUMBER: _ClassVar[int]
    MEMORY_AVAILABLE_BYTES_FIELD_NUMBER: _ClassVar[int]
    CONGESTION_ALGORITHMS_FIELD_NUMBER: _ClassVar[int]
    INTERFACES_FIELD_NUMBER: _ClassVar[int]
    TAKEN_PIDS_FIELD_NUMBER: _ClassVar[int]
    TAKEN_PORTS_FIELD_NUMBER: _ClassVar[int]
    FILES_FIELD_NUMBER: _ClassVar[int]
    PROBLEMS_FIELD_NUMBER: _ClassVar[int]
    SSH_ADDRESSES_FIELD_NUMBER: _ClassVar[int]
    PID_MAX_FIELD_NUMBER: _ClassVar[int]
    OWN_ADDRESSES_FIELD_NUMBER: _ClassVar[int]
    CPU_FEATURES_FIELD_NUMBER: _ClassVar[int]
    TAKEN_BY_FIELD_NUMBER: _ClassVar[int]
    TAKEN_NAMES_FIELD_NUMBER: _ClassVar[int]
    MOST_DESCRIPTORS_FIELD_NUMBER: _ClassVar[int]
    CGROUP_FIELD_NUMBER: _ClassVar[int]
    MOST_BACKLOG_FIELD_NUMBER: _ClassVar[int]
    MOST_MAPPINGS_FIELD_NUMBER: _ClassVar[int]
    END_OF_DESCRIPTORS_FIELD_NUMBER: _ClassVar[int]
    UNPROMISED_BYTES_FIELD_NUMBER: _ClassVar[int]
    MOST_SIGNALS_FIELD_NUMBER: _ClassVar[int]
    PROMISED_AT_ONCE_BYTES_FIELD_NUMBER: _ClassVar[int]
    REFUSALS_FIELD_NUMBER: _ClassVar[int]
    LACKS_CONFIGURATION_FIELD_NUMBER: _ClassVar[int]
    RECONNECTS_FIELD_NUMBER: _ClassVar[int]
    DEAF_FIELD_NUMBER: _ClassVar[int]
    NONLOCAL_BIND_FIELD_NUMBER: _ClassVar[int]
    LACKS_IMAGE_FIELD_NUMBER: _ClassVar[int]
    UNIT_DIFFERS_FIELD_NUMBER: _ClassVar[int]
    hostname: str
    version: str
    root: bool
    kernel: str
    machine: str
    criu_version: str
    criu_problem: str
    image_space_bytes: int
    memory_available_bytes: int
    congestion_algorithms: _containers.RepeatedScalarFieldContainer[str]
    interfaces: _containers.RepeatedCompositeFieldContainer[Interface]
    taken_pids: _containers.RepeatedScalarFieldContainer[int]
    taken_ports: _containers.RepeatedCompositeFieldContainer[TcpSocket]
    files: _containers.RepeatedCompositeFieldContainer[File]
    problems: _containers.RepeatedScalarFieldContainer[str]
    ssh_addresses: _containers.RepeatedScalarFieldContainer[str]
    pid_max: int
    own_addresses: _containers.RepeatedScalarFieldContainer[str]
    cpu_features: _containers.RepeatedScalarFieldContainer[str]
    taken_by: _containers.ScalarMap[int, str]
    taken_names: _containers.RepeatedCompositeFieldContainer[TakenName]
    most_descriptors: int
    cgroup: Cgroup
    most_backlog: int
    most_mappings: int
    end_of_descriptors: int
    unpromised_bytes: int
    most_signals: int
    promised_at_once_bytes: int
    refusals: _containers.RepeatedCompositeFieldContainer[Refusal]
    lacks_configuration: bool
    reconnects: bool
    deaf: _containers.RepeatedScalarFieldContainer[str]
    nonlocal_bind: bool
    lacks_image: bool
    unit_differs: bool
    def __init__(self, hostname: _Optional[str] = ..., version: _Optional[str] = ..., root: _Optional[bool] = ..., kernel: _Optional[str] = ..., machine: _Optional[str] = ..., criu_version: _Optional[str] = ..., criu_problem: _Optional[str] = ..., image_space_bytes: _Optional[int] = ..., memory_available_bytes: _Optional[int] = ..., congestion_algorithms: _Optional[_Iterable[str]] = ..., interfaces: _Optional[_Iterable[_Union[Interface, _Mapping[str, object]]]] = ..., taken_pids: _Optional[_Iterable[int]] = ..., taken_ports: _Optional[_Iterable[_Union[TcpSocket, _Mapping[str, object]]]] = ..., files: _Optional[_Iterable[_Union[File, _Mapping[str, object]]]] = ..., problems: _Optional[_Iterable[str]] = ..., ssh_addresses: _Optional[_Iterable[str]] = ..., pid_max: _Optional[int] = ..., own_addresses: _Optional[_Iterable[str]] = ..., cpu_features: _Optional[_Iterable[str]] = ..., taken_by: _Optional[_Mapping[int, str]] = ..., taken_names: _Optional[_Iterable[_Union[TakenName, _Mapping[str, object]]]] = ..., most_descriptors: _Optional[int] = ..., cgroup: _Optional[_Union[Cgroup, _Mapping[str, object]]] = ..., most_backlog: _Optional[int] = ..., most_mappings: _Optional[int] = ..., end_of_descriptors: _Optional[int] = ..., unpromised_bytes: _Optional[int] = ..., most_signals: _Optional[int] = ..., promised_at_once_bytes: _Optional[int] = ..., refusals: _Optional[_Iterable[_Union[Refusal, _Mapping[str, object]]]] = ..., lacks_configuration: _Optional[bool] = ..., reconnects: _Optional[bool] = ..., deaf: _Optional[_Iterable[str]] = ..., nonlocal_bind: _Optional[bool] = ..., lacks_image: _Optional[bool] = ..., unit_differs: _Optional[bool] = ...) -> None: ...

class Prepare(_message.Message):
    __slots__ = ("switch_kind", "addresses", "shell_job", "new_pid_namespace", "pids", "timeout_s", "tids", "same_path", "connections", "personality", "unix_sockets", "reconnections", "runtime")
    SWITCH_KIND_FIELD_NUMBER: _ClassVar[int]
    ADDRESSES_FIELD_NUMBER: _ClassVar[int]
    SHELL_JOB_FIELD_NUMBER: _ClassVar[int]
    NEW_PID_NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    PIDS_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_S_FIELD_NUMBER: _ClassVar[int]
    TIDS_FIELD_NUMBER: _ClassVar[int]
    SAME_PATH_FIELD_NUMBER: _ClassVar[int]
    CONNECTIONS_FIELD_NUMBER: _ClassVar[int]
    PERSONALITY_FIELD_NUMBER: _ClassVar[int]
    UNIX_SOCKETS_FIELD_NUMBER: _ClassVar[int]
    RECONNECTIONS_FIELD_NUMBER: _ClassVar[int]
    RUNTIME_FIELD_NUMBER: _ClassVar[int]
    switch_kind: str
    addresses: _containers.RepeatedCompositeFieldContainer[ServiceAddress]
    shell_job: bool
    new_pid_namespace: bool
    pids: _containers.RepeatedScalarFieldContainer[int]
    timeout_s: int
    tids: _containers.RepeatedScalarFieldContainer[int]
    same_path: bool
    connections: int
    personality: int
    unix_sockets: _containers.RepeatedCompositeFieldContainer[TakenName]
    reconnections: _containers.RepeatedCompositeFieldContainer[Reconnection]
    runtime: str
    def __init__(self, switch_kind: _Optional[str] = ..., addresses: _Optional[_Iterable[_Union[ServiceAddress, _Mapping[str, object]]]] = ..., shell_job: _Optional[bool] = ..., new_pid_namespace: _Optional[bool] = ..., pids: _Optional[_Iterable[int]] = ..., timeout_s: _Optional[int] = ..., tids: _Optional[_Iterable[int]] = ..., same_path: _Optional[bool] = ..., connections: _Optional[int] = ..., personality: _Optional[int] = ..., unix_sockets: _Optional[_Iterable[_Union[TakenName, _Mapping[str, object]]]] = ..., reconnections: _Optional[_Iterable[_Union[Reconnection, _Mapping[str, object]]]] = ..., runtime: _Optional[str] = ...) -> None: ...

class ServiceAddress(_message.Message):
    __slots__ = ("address", "prefix_length", "device", "stays")
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    PREFIX_LENGTH_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    STAYS_FIELD_NUMBER: _ClassVar[int]
    address: str
    prefix_length: int
    device: str
    stays: bool
    def __init__(self, address: _Optional[str] = ..., prefix_length: _Optional[int] = ..., device: _Optional[str] = ..., stays: _Optional[bool] = ...) -> None: ...

class Prepared(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class FileChunk(_message.Message):
    __slots__ = ("name", "offset", "data", "last", "mode", "uid", "gid", "accessed_ns", "modified_ns", "attributes", "removed", "hard_link")
    class AttributesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: bytes
        def __init__(self, key: _Optional[str] = ..., value: _Optional[bytes] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    LAST_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    UID_FIELD_NUMBER: _ClassVar[int]
    GID_FIELD_NUMBER: _ClassVar[int]
    ACCESSED_NS_FIELD_NUMBER: _ClassVar[int]
    MODIFIED_NS_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    REMOVED_FIELD_NUMBER: _ClassVar[int]
    HARD_LINK_FIELD_NUMBER: _ClassVar[int]
    name: str
    offset: int
    data: bytes
    last: bool
    mode: int
    uid: int
    gid: int
    accessed_ns: int
    modified_ns: int
    attributes: _containers.ScalarMap[str, bytes]
    removed: bool
    hard_link: str
    def __init__(self, name: _Optional[str] = ..., offset: _Optional[int] = ..., data: _Optional[bytes] = ..., last: _Optional[bool] = ..., mode: _Optional[int] = ..., uid: _Optional[int] = ..., gid: _Optional[int] = ..., accessed_ns: _Optional[int] = ..., modified_ns: _Optional[int] = ..., attributes: _Optional[_Mapping[str, bytes]] = ..., removed: _Optional[bool] = ..., hard_link: _Optional[str] = ...) -> None: ...

class Connections(_message.Message):
    __slots__ = ("sockets",)
    SOCKETS_FIELD_NUMBER: _ClassVar[int]
    sockets: _containers.RepeatedCompositeFieldContainer[HeldSocket]
    def __init__(self, sockets: _Optional[_Iterable[_Union[HeldSocket, _Mapping[str, object]]]] = ...) -> None: ...

class HeldSocket(_message.Message):
    __slots__ = ("inode", "holders")
    INODE_FIELD_NUMBER: _ClassVar[int]
    HOLDERS_FIELD_NUMBER: _ClassVar[int]
    inode: int
    holders: _containers.RepeatedCompositeFieldContainer[Descriptor]
    def __init__(self, inode: _Optional[int] = ..., holders: _Optional[_Iterable[_Union[Descriptor, _Mapping[str, object]]]] = ...) -> None: ...

class Descriptor(_message.Message):
    __slots__ = ("pid", "fd")
    PID_FIELD_NUMBER: _ClassVar[int]
    FD_FIELD_NUMBER: _ClassVar[int]
    pid: int
    fd: int
    def __init__(self, pid: _Optional[int] = ..., fd: _Optional[int] = ...) -> None: ...

class SocketOptions(_message.Message):
    __slots__ = ("inode", "options", "congestion", "values")
    class OptionsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    class ValuesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: bytes
        def __init__(self, key: _Optional[str] = ..., value: _Optional[bytes] = ...) -> None: ...
    INODE_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    CONGESTION_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    inode: int
    options: _containers.ScalarMap[str, int]
    congestion: str
    values: _containers.ScalarMap[str, bytes]
    def __init__(self, inode: _Optional[int] = ..., options: _Optional[_Mapping[str, int]] = ..., congestion: _Optional[str] = ..., values: _Optional[_Mapping[str, bytes]] = ...) -> None: ...

class TaskState(_message.Message):
    __slots__ = ("pid", "state")
    PID_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    pid: int
    state: str
    def __init__(self, pid: _Optional[int] = ..., state: _Optional[str] = ...) -> None: ...

class Restore(_message.Message):
    __slots__ = ("manifest", "closed", "sockets", "listeners", "most_ms", "tasks", "surroundings", "renamed", "others", "ended_calls", "connections")
    class RenamedEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    MANIFEST_FIELD_NUMBER: _ClassVar[int]
    CLOSED_FIELD_NUMBER: _ClassVar[int]
    SOCKETS_FIELD_NUMBER: _ClassVar[int]
    LISTENERS_FIELD_NUMBER: _ClassVar[int]
    MOST_MS_FIELD_NUMBER: _ClassVar[int]
    TASKS_FIELD_NUMBER: _ClassVar[int]
    SURROUNDINGS_FIELD_NUMBER: _ClassVar[int]
    RENAMED_FIELD_NUMBER: _ClassVar[int]
    OTHERS_FIELD_NUMBER: _ClassVar[int]
    ENDED_CALLS_FIELD_NUMBER: _ClassVar[int]
    CONNECTIONS_FIELD_NUMBER: _ClassVar[int]
    manifest: _manifest_pb2.Manifest
    closed: _containers.RepeatedScalarFieldContainer[int]
    sockets: _containers.RepeatedCompositeFieldContainer[HeldSocket]
    listeners: _containers.RepeatedCompositeFieldContainer[SocketOptions]
    most_ms: int
    tasks: _containers.RepeatedCompositeFieldContainer[TaskState]
    surroundings: _containers.RepeatedCompositeFieldContainer[Surroundings]
    renamed: _containers.ScalarMap[str, str]
    others: _containers.RepeatedCompositeFieldContainer[SocketOptions]
    ended_calls: _containers.RepeatedCompositeFieldContainer[EndedCall]
    connections: int
    def __init__(self, manifest: _Optional[_Union[_manifest_pb2.Manifest, _Mapping[str, object]]] = ..., closed: _Optional[_Iterable[int]] = ..., sockets: _Optional[_Iterable[_Union[HeldSocket, _Mapping[str, object]]]] = ..., listeners: _Optional[_Iterable[_Union[SocketOptions, _Mapping[str, object]]]] = ..., most_ms: _Optional[int] = ..., tasks: _Optional[_Iterable[_Union[TaskState, _Mapping[str, object]]]] = ..., surroundings: _Optional[_Iterable[_Union[Surroundings, _Mapping[str, object]]]] = ..., renamed: _Optional[_Mapping[str, str]] = ..., others: _Optional[_Iterable[_Union[SocketOptions, _Mapping[str, object]]]] = ..., ended_calls: _Optional[_Iterable[_Union[EndedCall, _Mapping[str, object]]]] = ..., connections: _Optional[int] = ...) -> None: ...

class EndedCall(_message.Message):
    __slots__ = ("tid", "number")
    TID_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    tid: int
    number: int
    def __init__(self, tid: _Optional[int] = ..., number: _Optional[int] = ...) -> None: ...

class Surroundings(_message.Message):
    __slots__ = ("pid", "coredump_filter", "personality", "threads", "limits", "autogroup_nice")
    PID_FIELD_NUMBER: _ClassVar[int]
    COREDUMP_FILTER_FIELD_NUMBER: _ClassVar[int]
    PERSONALITY_FIELD_NUMBER: _ClassVar[int]
    THREADS_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    AUTOGROUP_NICE_FIELD_NUMBER: _ClassVar[int]
    pid: int
    coredump_filter: int
    personality: int
    threads: _containers.RepeatedCompositeFieldContainer[ThreadSurroundings]
    limits: _containers.RepeatedCompositeFieldContainer[ResourceLimit]
    autogroup_nice: int
    def __init__(self, pid: _Optional[int] = ..., coredump_filter: _Optional[int] = ..., personality: _Optional[int] = ..., threads: _Optional[_Iterable[_Union[ThreadSurroundings, _Mapping[str, object]]]] = ..., limits: _Optional[_Iterable[_Union[ResourceLimit, _Mapping[str, object]]]] = ..., autogroup_nice: _Optional[int] = ...) -> None: ...

class ResourceLimit(_message.Message):
    __slots__ = ("resource", "soft", "hard")
    RESOURCE_FIELD_NUMBER: _ClassVar[int]
    SOFT_FIELD_NUMBER: _ClassVar[int]
    HARD_FIELD_NUMBER: _ClassVar[int]
    resource: int
    soft: int
    hard: int
    def __init__(self, resource: _Optional[int] = ..., soft: _Optional[int] = ..., hard: _Optional[int] = ...) -> None: ...

class ThreadSurroundings(_message.Message):
    __slots__ = ("tid", "processors", "io_priority", "timer_slack_ns", "slice_ns")
    TID_FIELD_NUMBER: _ClassVar[int]
    PROCESSORS_FIELD_NUMBER: _ClassVar[int]
    IO_PRIORITY_FIELD_NUMBER: _ClassVar[int]
    TIMER_SLACK_NS_FIELD_NUMBER: _ClassVar[int]
    SLICE_NS_FIELD_NUMBER: _ClassVar[int]
    tid: int
    processors: _containers.RepeatedScalarFieldContainer[int]
    io_priority: int
    timer_slack_ns: int
    slice_ns: int
    def __init__(self, tid: _Optional[int] = ..., processors: _Optional[_Iterable[int]] = ..., io_priority: _Optional[int] = ..., timer_slack_ns: _Optional[int] = ..., slice_ns: _Optional[int] = ...) -> None: ...

class PhaseTime(_message.Message):
    __slots__ = ("name", "start_ns", "duration_ns")
    NAME_FIELD_NUMBER: _ClassVar[int]
    START_NS_FIELD_NUMBER: _ClassVar[int]
    DURATION_NS_FIELD_NUMBER: _ClassVar[int]
    name: str
    start_ns: int
    duration_ns: int
    def __init__(self, name: _Optional[str] = ..., start_ns: _Optional[int] = ..., duration_ns: _Optional[int] = ...) -> None: ...

class Restored(_message.Message):
    __slots__ = ("destination_pid", "phases", "notes")
    DESTINATION_PID_FIELD_NUMBER: _ClassVar[int]
    PHASES_FIELD_NUMBER: _ClassVar[int]
    NOTES_FIELD_NUMBER: _ClassVar[int]
    destination_pid: int
    phases: _containers.RepeatedCompositeFieldContainer[PhaseTime]
    notes: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, destination_pid: _Optional[int] = ..., phases: _Optional[_Iterable[_Union[PhaseTime, _Mapping[str, object]]]] = ..., notes: _Optional[_Iterable[str]] = ...) -> None: ...

class Switch(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Switched(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Commit(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GapPackets(_message.Message):
    __slots__ = ("packets", "sizes")
    PACKETS_FIELD_NUMBER: _ClassVar[int]
    SIZES_FIELD_NUMBER: _ClassVar[int]
    packets: _containers.RepeatedScalarFieldContainer[bytes]
    sizes: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, packets: _Optional[_Iterable[bytes]] = ..., sizes: _Optional[_Iterable[int]] = ...) -> None: ...

class Activated(_message.Message):
    __slots__ = ("destination_pid", "phases", "tasks", "problems")
    DESTINATION_PID_FIELD_NUMBER: _ClassVar[int]
    PHASES_FIELD_NUMBER: _ClassVar[int]
    TASKS_FIELD_NUMBER: _ClassVar[int]
    PROBLEMS_FIELD_NUMBER: _ClassVar[int]
    destination_pid: int
    phases: _containers.RepeatedCompositeFieldContainer[PhaseTime]
    tasks: _containers.RepeatedCompositeFieldContainer[TaskState]
    problems: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, destination_pid: _Optional[int] = ..., phases: _Optional[_Iterable[_Union[PhaseTime, _Mapping[str, object]]]] = ..., tasks: _Optional[_Iterable[_Union[TaskState, _Mapping[str, object]]]] = ..., problems: _Optional[_Iterable[str]] = ...) -> None: ...

class Abort(_message.Message):
    __slots__ = ("reason", "outcome")
    REASON_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    reason: str
    outcome: str
    def __init__(self, reason: _Optional[str] = ..., outcome: _Optional[str] = ...) -> None: ...

class Aborted(_message.Message):
    __slots__ = ("undone", "problems", "packets")
    UNDONE_FIELD_NUMBER: _ClassVar[int]
    PROBLEMS_FIELD_NUMBER: _ClassVar[int]
    PACKETS_FIELD_NUMBER: _ClassVar[int]
    undone: _containers.RepeatedScalarFieldContainer[str]
    problems: _containers.RepeatedScalarFieldContainer[str]
    packets: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, undone: _Optional[_Iterable[str]] = ..., problems: _Optional[_Iterable[str]] = ..., packets: _Optional[_Iterable[bytes]] = ...) -> None: ...

class Goodbye(_message.Message):
    __slots__ = ("tasks", "problems", "notes", "outcome", "reason")
    TASKS_FIELD_NUMBER: _ClassVar[int]
    PROBLEMS_FIELD_NUMBER: _ClassVar[int]
    NOTES_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    tasks: _containers.RepeatedCompositeFieldContainer[TaskState]
    problems: _containers.RepeatedScalarFieldContainer[str]
    notes: _containers.RepeatedScalarFieldContainer[str]
    outcome: str
    reason: str
    def __init__(self, tasks: _Optional[_Iterable[_Union[TaskState, _Mapping[str, object]]]] = ..., problems: _Optional[_Iterable[str]] = ..., notes: _Optional[_Iterable[str]] = ..., outcome: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class Ask(_message.Message):
    __slots__ = ("migration_id", "wait_ms")
    MIGRATION_ID_FIELD_NUMBER: _ClassVar[int]
    WAIT_MS_FIELD_NUMBER: _ClassVar[int]
    migration_id: str
    wait_ms: int
    def __init__(self, migration_id: _Optional[str] = ..., wait_ms: _Optional[int] = ...) -> None: ...

class Answer(_message.Message):
    __slots__ = ("where", "destination_pid")
    class Where(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        WHERE_UNSPECIFIED: _ClassVar[Answer.Where]
        RUNS: _ClassVar[Answer.Where]
        ENDED: _ClassVar[Answer.Where]
        UNDER_WAY: _ClassVar[Answer.Where]
        NOT_HERE: _ClassVar[Answer.Where]
    WHERE_UNSPECIFIED: Answer.Where
    RUNS: Answer.Where
    ENDED: Answer.Where
    UNDER_WAY: Answer.Where
    NOT_HERE: Answer.Where
    WHERE_FIELD_NUMBER: _ClassVar[int]
    DESTINATION_PID_FIELD_NUMBER: _ClassVar[int]
    where: Answer.Where
    destination_pid: int
    def __init__(self, where: _Optional[_Union[Answer.Where, str]] = ..., destination_pid: _Optional[int] = ...) -> None: ...
