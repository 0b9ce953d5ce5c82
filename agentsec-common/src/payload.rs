//! temporary
pub enum Method { Connect, Other }
#[inline(always)]
pub const fn request_method(b: &[u8; 16], len: u32) -> Option<Method> {
    if len < 5 { return None; }
    let w = u32::from_be_bytes([b[0],b[1],b[2],b[3]]);
    match &w.to_be_bytes() { b"GET " | b"PUT " | b"POST" | b"HEAD" | b"DELE" | b"PATC" | b"OPTI" | b"TRAC" => Some(Method::Other), b"CONN" => Some(Method::Connect), _ => None }
}
#[inline(always)]
pub const fn is_http2_preface(b: &[u8; 16], len: u32) -> bool { len >= 16 && b[0]==b'P' && b[1]==b'R' && b[2]==b'I' && b[3]==b' ' && b[4]==b'*' }
#[inline(always)]
pub const fn is_tls_record(b: &[u8; 16], len: u32) -> bool { len >= 5 && b[0] >= 20 && b[0] <= 23 && b[1] == 3 }
pub struct Alert(pub u8);
impl Alert { #[inline(always)] pub const fn refuses(&self) -> bool { self.0 >= 40 } }
#[inline(always)]
pub const fn tls_alert(b: &[u8; 16], len: u32, _payload: u32) -> Option<Alert> { if len>=7 && b[0]==21 && b[4]==2 { Some(Alert(b[6])) } else { None } }
#[inline(always)]
pub const fn dns_query(b: &[u8; 16], len: u32) -> Option<u16> { if len>=12 && b[2] & 0x80 == 0 { Some((b[0] as u16) << 8 | b[1] as u16) } else { None } }
#[inline(always)]
pub const fn dns_response(b: &[u8; 16], len: u32) -> Option<u16> { if len>=12 && b[2] & 0x80 != 0 { Some((b[0] as u16) << 8 | b[1] as u16) } else { None } }
