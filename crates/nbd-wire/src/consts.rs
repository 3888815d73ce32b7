// SPDX-License-Identifier: MIT OR Apache-2.0
//! The numbers of the protocol, named as in `doc/proto.md`.

/// First magic of the server's greeting, ASCII `NBDMAGIC` ('Newstyle negotiation').
pub const NBD_MAGIC: u64 = 0x4e42_444d_4147_4943;
/// Second magic of the greeting, and the magic of each option: ASCII `IHAVEOPT` ('Newstyle
/// negotiation').
pub const NBD_IHAVEOPT: u64 = 0x4948_4156_454f_5054;
/// Magic of each option reply ('Fixed newstyle negotiation').
pub const NBD_REP_MAGIC: u64 = 0x0003_e889_0455_65a9;
/// Magic of each request header ('Request message').
pub const NBD_REQUEST_MAGIC: u32 = 0x2560_9513;
/// Magic of each extended request header ('Request message').
pub const NBD_EXTENDED_REQUEST_MAGIC: u32 = 0x21e4_1c71;
/// Magic of each simple reply ('Simple reply message').
pub const NBD_SIMPLE_REPLY_MAGIC: u32 = 0x6744_6698;
/// Magic of each structured reply chunk ('Structured reply chunk message').
pub const NBD_STRUCTURED_REPLY_MAGIC: u32 = 0x668e_33ef;
/// Magic of each extended reply chunk ('Extended reply chunk message').
pub const NBD_EXTENDED_REPLY_MAGIC: u32 = 0x6e8a_278c;

/// The server speaks fixed newstyle ('Handshake flags').
pub const NBD_FLAG_FIXED_NEWSTYLE: u16 = 1 << 0;
/// The server can leave out the 124 zeroes after EXPORT_NAME ('Handshake flags').
pub const NBD_FLAG_NO_ZEROES: u16 = 1 << 1;
/// The client speaks fixed newstyle ('Client flags').
pub const NBD_FLAG_C_FIXED_NEWSTYLE: u32 = 1 << 0;
/// The client wants no 124 zeroes after EXPORT_NAME ('Client flags').
pub const NBD_FLAG_C_NO_ZEROES: u32 = 1 << 1;

/// The transmission flags field is valid ('Transmission flags').
pub const NBD_FLAG_HAS_FLAGS: u16 = 1 << 0;
/// The export is read-only ('Transmission flags').
pub const NBD_FLAG_READ_ONLY: u16 = 1 << 1;
/// FLUSH is understood ('Transmission flags').
pub const NBD_FLAG_SEND_FLUSH: u16 = 1 << 2;
/// The command flag FUA is understood ('Transmission flags').
pub const NBD_FLAG_SEND_FUA: u16 = 1 << 3;
/// Seeking is costly ('Transmission flags').
pub const NBD_FLAG_ROTATIONAL: u16 = 1 << 4;
/// TRIM is understood ('Transmission flags').
pub const NBD_FLAG_SEND_TRIM: u16 = 1 << 5;
/// WRITE_ZEROES is understood ('Transmission flags').
pub const NBD_FLAG_SEND_WRITE_ZEROES: u16 = 1 << 6;
/// The command flag DF is understood ('Transmission flags').
pub const NBD_FLAG_SEND_DF: u16 = 1 << 7;
/// A client may open several connections at once ('Transmission flags').
pub const NBD_FLAG_CAN_MULTI_CONN: u16 = 1 << 8;
/// RESIZE of an experimental extension ('Transmission flags').
pub const NBD_FLAG_SEND_RESIZE: u16 = 1 << 9;
/// CACHE is understood ('Transmission flags').
pub const NBD_FLAG_SEND_CACHE: u16 = 1 << 10;
/// The command flag FAST_ZERO is understood ('Transmission flags').
pub const NBD_FLAG_SEND_FAST_ZERO: u16 = 1 << 11;
/// BLOCK_STATUS may have a payload that names contexts ('Transmission flags', with extended
/// headers).
pub const NBD_FLAG_BLOCK_STATUS_PAYLOAD: u16 = 1 << 12;

/// Choose an export, without a way to answer an error ('Option types').
pub const NBD_OPT_EXPORT_NAME: u32 = 1;
/// End the negotiation ('Option types').
pub const NBD_OPT_ABORT: u32 = 2;
/// List the exports ('Option types').
pub const NBD_OPT_LIST: u32 = 3;
/// Withdrawn ('Option types').
pub const NBD_OPT_PEEK_EXPORT: u32 = 4;
/// Upgrade the connection to TLS ('Option types').
pub const NBD_OPT_STARTTLS: u32 = 5;
/// Describe an export ('Option types').
pub const NBD_OPT_INFO: u32 = 6;
/// Describe an export and begin transmission ('Option types').
pub const NBD_OPT_GO: u32 = 7;
/// Use structured replies ('Option types').
pub const NBD_OPT_STRUCTURED_REPLY: u32 = 8;
/// List metadata contexts ('Option types').
pub const NBD_OPT_LIST_META_CONTEXT: u32 = 9;
/// Choose metadata contexts ('Option types').
pub const NBD_OPT_SET_META_CONTEXT: u32 = 10;
/// Use extended headers ('Option types').
pub const NBD_OPT_EXTENDED_HEADERS: u32 = 11;

/// Success, or the end of a list ('Option reply types').
pub const NBD_REP_ACK: u32 = 1;
/// One export of a list ('Option reply types').
pub const NBD_REP_SERVER: u32 = 2;
/// One aspect of an export ('Option reply types').
pub const NBD_REP_INFO: u32 = 3;
/// One metadata context ('Option reply types').
pub const NBD_REP_META_CONTEXT: u32 = 4;
/// The bit that marks an error reply ('Option reply types').
pub const NBD_REP_FLAG_ERROR: u32 = 1 << 31;
/// The option is unknown here ('Option reply types').
pub const NBD_REP_ERR_UNSUP: u32 = NBD_REP_FLAG_ERROR | 1;
/// The option is forbidden here ('Option reply types').
pub const NBD_REP_ERR_POLICY: u32 = NBD_REP_FLAG_ERROR | 2;
/// The option is malformed ('Option reply types').
pub const NBD_REP_ERR_INVALID: u32 = NBD_REP_FLAG_ERROR | 3;
/// The option is not supported on this platform ('Option reply types').
pub const NBD_REP_ERR_PLATFORM: u32 = NBD_REP_FLAG_ERROR | 4;
/// TLS must come first ('Option reply types').
pub const NBD_REP_ERR_TLS_REQD: u32 = NBD_REP_FLAG_ERROR | 5;
/// There is no such export ('Option reply types').
pub const NBD_REP_ERR_UNKNOWN: u32 = NBD_REP_FLAG_ERROR | 6;
/// The server is shutting down ('Option reply types').
pub const NBD_REP_ERR_SHUTDOWN: u32 = NBD_REP_FLAG_ERROR | 7;
/// The client must ask for the block size ('Option reply types').
pub const NBD_REP_ERR_BLOCK_SIZE_REQD: u32 = NBD_REP_FLAG_ERROR | 8;
/// The option is too long ('Option reply types').
pub const NBD_REP_ERR_TOO_BIG: u32 = NBD_REP_FLAG_ERROR | 9;
/// Extended headers must come first ('Option reply types').
pub const NBD_REP_ERR_EXT_HEADER_REQD: u32 = NBD_REP_FLAG_ERROR | 10;

/// Size and transmission flags of an export ('Option reply types', `NBD_REP_INFO`).
pub const NBD_INFO_EXPORT: u16 = 0;
/// Canonical name of an export ('Option reply types', `NBD_REP_INFO`).
pub const NBD_INFO_NAME: u16 = 1;
/// Description of an export ('Option reply types', `NBD_REP_INFO`).
pub const NBD_INFO_DESCRIPTION: u16 = 2;
/// Block size constraints of an export ('Option reply types', `NBD_REP_INFO`).
pub const NBD_INFO_BLOCK_SIZE: u16 = 3;

/// Read ('Request types').
pub const NBD_CMD_READ: u16 = 0;
/// Write ('Request types').
pub const NBD_CMD_WRITE: u16 = 1;
/// Disconnect ('Request types').
pub const NBD_CMD_DISC: u16 = 2;
/// Make answered writes durable ('Request types').
pub const NBD_CMD_FLUSH: u16 = 3;
/// Discard ('Request types').
pub const NBD_CMD_TRIM: u16 = 4;
/// Prefetch ('Request types').
pub const NBD_CMD_CACHE: u16 = 5;
/// Write zeroes without a payload ('Request types').
pub const NBD_CMD_WRITE_ZEROES: u16 = 6;
/// Query metadata contexts ('Request types').
pub const NBD_CMD_BLOCK_STATUS: u16 = 7;
/// Resize, an experimental extension ('Request types').
pub const NBD_CMD_RESIZE: u16 = 8;

/// Durable before the reply; valid on every command ('Command flags').
pub const NBD_CMD_FLAG_FUA: u16 = 1 << 0;
/// WRITE_ZEROES must not make a hole ('Command flags').
pub const NBD_CMD_FLAG_NO_HOLE: u16 = 1 << 1;
/// READ must not be fragmented ('Command flags').
pub const NBD_CMD_FLAG_DF: u16 = 1 << 2;
/// BLOCK_STATUS wants one extent ('Command flags').
pub const NBD_CMD_FLAG_REQ_ONE: u16 = 1 << 3;
/// WRITE_ZEROES must be fast or fail ('Command flags').
pub const NBD_CMD_FLAG_FAST_ZERO: u16 = 1 << 4;
/// The length counts a payload ('Command flags', with extended headers).
pub const NBD_CMD_FLAG_PAYLOAD_LEN: u16 = 1 << 5;

/// No further chunk follows ('Structured reply flags').
pub const NBD_REPLY_FLAG_DONE: u16 = 1 << 0;

/// A chunk without a payload, always the last one ('Structured reply types').
pub const NBD_REPLY_TYPE_NONE: u16 = 0;
/// Content of the export ('Structured reply types').
pub const NBD_REPLY_TYPE_OFFSET_DATA: u16 = 1;
/// A part of the export that reads as zeroes ('Structured reply types').
pub const NBD_REPLY_TYPE_OFFSET_HOLE: u16 = 2;
/// Descriptors of 32 bits for one metadata context ('Structured reply types').
pub const NBD_REPLY_TYPE_BLOCK_STATUS: u16 = 5;
/// Descriptors of 64 bits for one metadata context ('Structured reply types', with extended
/// headers).
pub const NBD_REPLY_TYPE_BLOCK_STATUS_EXT: u16 = 6;
/// The bit that marks an error chunk ('Structured reply types').
pub const NBD_REPLY_FLAG_ERROR: u16 = 1 << 15;
/// An error of the whole request ('Structured reply types').
pub const NBD_REPLY_TYPE_ERROR: u16 = NBD_REPLY_FLAG_ERROR | 1;
/// An error at an offset ('Structured reply types').
pub const NBD_REPLY_TYPE_ERROR_OFFSET: u16 = NBD_REPLY_FLAG_ERROR | 2;

/// The extent is not allocated ('The `base:` metadata namespace', `base:allocation`).
pub const NBD_STATE_HOLE: u32 = 1 << 0;
/// The extent reads as zeroes ('The `base:` metadata namespace', `base:allocation`).
pub const NBD_STATE_ZERO: u32 = 1 << 1;
